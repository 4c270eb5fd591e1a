"""Forecast of the demand, from past arrivals only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.scenario import ForecastChoice, QueryTypeRule
from simulator.engine import Observation

SECONDS_PER_H = 3600.0
MIN_REQUESTS = 1e-6  # decayed requests below which a mean of lengths is not renewed
MIN_ARRIVAL_PER_H = 1.0  # a type that was silent may speak again: it keeps a route


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """Demand by query type, all arrays of shape (types,).

    `input_output` and `output_squared` are E[h f] and E[f^2] of one request.
    """

    arrival_per_h: npt.NDArray[np.float64]
    input_tokens: npt.NDArray[np.float64]
    output_tokens: npt.NDArray[np.float64]
    input_output: npt.NDArray[np.float64]
    output_squared: npt.NDArray[np.float64]


def expected_demand(types: Sequence[QueryTypeRule]) -> Demand:
    """What the scenario expects before the first request: means only, so lengths count as if they did not vary."""
    inputs = np.array([rule.expected.input_tokens for rule in types], dtype=np.float64)
    outputs = np.array([rule.expected.output_tokens for rule in types], dtype=np.float64)
    return Demand(
        arrival_per_h=np.array([rule.expected.arrival_per_h for rule in types], dtype=np.float64),
        input_tokens=inputs,
        output_tokens=outputs,
        input_output=inputs * outputs,
        output_squared=outputs**2,
    )


class EwmaForecast:
    """Exponentially weighted mean over intervals, starting from the expected demand.

    Rates are averaged over time, token moments over requests: each interval's sums decay with the same weight, and the
    expected demand of one interval is the first of them. Output lengths are those of requests that have finished.
    """

    def __init__(self, types: Sequence[QueryTypeRule], choice: ForecastChoice, interval_s: float) -> None:
        prior = expected_demand(types)
        self._choice = choice
        self._types = len(types)
        self._since_s = 0.0
        self._arrival_per_h = prior.arrival_per_h
        weight = np.maximum(prior.arrival_per_h * interval_s / SECONDS_PER_H, 1.0)  # requests that the prior counts for
        self._arrived, self._finished = weight.copy(), weight.copy()
        self._inputs = weight * prior.input_tokens
        self._outputs = weight * np.stack([prior.output_tokens, prior.input_output, prior.output_squared])

    def observe(self, seen: Observation) -> None:
        """Take in what happened since the last call."""
        elapsed_h = (seen.now_s - self._since_s) / SECONDS_PER_H
        if elapsed_h <= 0:
            return
        keep = 1 - self._choice.weight
        self._arrival_per_h = keep * self._arrival_per_h + self._choice.weight * seen.arrived / elapsed_h
        fade = self._fading(self._arrived, seen.arrived)
        self._arrived = fade * self._arrived + seen.arrived
        self._inputs = fade * self._inputs + seen.arrived_input_tokens
        fade = self._fading(self._finished, seen.finished)
        self._finished = fade * self._finished + seen.finished
        sums = np.stack([seen.finished_output_tokens, seen.finished_input_output, seen.finished_output_squared])
        self._outputs = fade * self._outputs + sums
        self._since_s = seen.now_s

    def _fading(self, before: npt.NDArray[np.float64], new: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Factor on what was known before; one for types that would be forgotten: lengths outlast silence."""
        keep = 1 - self._choice.weight
        return np.where(keep * before + new > MIN_REQUESTS, keep, 1.0)

    def demand(self) -> Demand:
        """The forecast for the next interval, with the margin on the rate."""
        outputs, input_output, output_squared = self._outputs / self._finished
        return Demand(
            arrival_per_h=np.maximum(self._arrival_per_h * self._choice.margin, MIN_ARRIVAL_PER_H),
            input_tokens=self._inputs / self._arrived,
            output_tokens=outputs,
            input_output=input_output,
            output_squared=output_squared,
        )
