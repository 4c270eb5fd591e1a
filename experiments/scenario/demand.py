"""Forecast of the demand, from past arrivals only (but for the oracle, which is the bound of all forecasts)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.scenario.scenario import Scenario, classify
from experiments.scenario.schema import ForecastChoice, QueryTypeRule
from simulator.engine import Observation
from simulator.moments import TokenMoments
from simulator.planning.problem import DemandQuantiles
from simulator.ticks import to_ticks_array
from simulator.units import SECONDS_PER_H
from simulator.workload import Trace
from traces.forecast.port import Setting
from traces.forecast.registry import make_forecaster, season_intervals
from traces.source import TraceSource

MIN_REQUESTS = 1e-6  # decayed requests below which a mean of lengths is not renewed
MIN_INTERVAL_S = 1.0  # what the horizon leaves of the last interval says nothing of a rate if it is shorter
MIN_ARRIVAL_PER_H = 1.0  # a type that was silent may speak again: it keeps a route


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """Demand by query type: arrivals, shape (types,), and means of the lengths, shape (6, types).

    E[h^2] need not be known: only reports use it.
    """

    arrival_per_h: npt.NDArray[np.float64]
    tokens: TokenMoments


def expected_demand(types: Sequence[QueryTypeRule]) -> Demand:
    """What the scenario expects before the first request: means only, so lengths count as if they did not vary."""
    inputs = np.array([rule.expected.input_tokens for rule in types], dtype=np.float64)
    outputs = np.array([rule.expected.output_tokens for rule in types], dtype=np.float64)
    return Demand(
        arrival_per_h=np.array([rule.expected.arrival_per_h for rule in types], dtype=np.float64),
        tokens=TokenMoments.means(inputs, outputs, inputs * outputs, outputs**2),
    )


class DemandForecast:
    """Arrival rates from a forecaster of the registry, lengths from exponentially weighted means.

    Both start from the expected demand. Token moments are averaged over requests: each interval's sums decay with the
    same weight, and the expected demand of one interval is the first of them. Output lengths are those of requests that
    have finished.

    Parameters
    ----------
    true_arrival_per_h
        For the oracle alone: what really arrives in each interval, shape (intervals, types).

    Raises
    ------
    InputError
        If the season of the forecast is no whole number of intervals.
    """

    def __init__(
        self,
        types: Sequence[QueryTypeRule],
        choice: ForecastChoice,
        interval_s: float,
        true_arrival_per_h: npt.NDArray[np.float64] | None = None,
    ) -> None:
        prior = expected_demand(types)
        self._choice = choice
        self._since_s = 0.0
        setting = Setting(
            series=len(types),
            season=season_intervals(choice.method, choice.season_s, interval_s),
            step=interval_s / SECONDS_PER_H,
            weight=choice.weight,
            prior=prior.arrival_per_h,
        )
        self._arrivals = make_forecaster(choice.method, setting, truth=true_arrival_per_h)
        weight = np.maximum(prior.arrival_per_h * interval_s / SECONDS_PER_H, 1.0)  # requests that the prior counts for
        self._arrived, self._finished = weight.copy(), weight.copy()
        self._inputs = weight * prior.tokens.input_tokens
        self._outputs = weight * prior.tokens.sums[2:5]

    def observe(self, seen: Observation) -> None:
        """Take in what happened since the last call."""
        elapsed_h = (seen.now_s - self._since_s) / SECONDS_PER_H
        if elapsed_h <= 0:
            return
        self._arrivals.observe(seen.arrived.astype(np.float64), elapsed_h)
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
        return Demand(
            arrival_per_h=np.maximum(self._arrival_per_h() * self._choice.margin, MIN_ARRIVAL_PER_H),
            tokens=TokenMoments.means(self._inputs / self._arrived, *(self._outputs / self._finished)),
        )

    def quantiles(self, levels: Sequence[float]) -> DemandQuantiles:
        """The quantiles of the next interval's arrivals, relative to what `demand` plans for."""
        planned = self.demand().arrival_per_h
        quantiles = self._arrivals.forecast(levels).quantiles[0].T
        return DemandQuantiles(levels=tuple(levels), factor=quantiles / planned)

    def _arrival_per_h(self) -> npt.NDArray[np.float64]:
        if self._choice.quantile is None:
            return np.asarray(self._arrivals.forecast().mean[0])
        return np.asarray(self._arrivals.forecast([self._choice.quantile]).quantiles[0, :, 0])


class ArrivalCounts:
    """Counts the arrivals of each interval by query type, chunk by chunk: what the oracle needs to know.

    An interval begins with the arrivals of its own first tick, as in the engine.
    """

    def __init__(self, scenario: Scenario, interval_s: float) -> None:
        self.interval_s = interval_s
        self._scenario = scenario
        self._counts = np.zeros((1, len(scenario.types)), dtype=np.int64)

    def look_at(self, trace: Trace) -> None:
        """Look at the next chunk of a trace; requests that match no query type are left out."""
        if not len(trace):
            return
        kind = classify(self._scenario, trace)
        first = max(0, int(trace.arrival_s[0] / self.interval_s) - 1)
        starts_s = self.interval_s * np.arange(first, int(trace.arrival_s[-1] / self.interval_s) + 2, dtype=np.float64)
        place = first - 1 + np.searchsorted(to_ticks_array(starts_s), to_ticks_array(trace.arrival_s), side="right")
        more = int(place[-1]) + 1 - len(self._counts)
        if more > 0:
            self._counts = np.concatenate([self._counts, np.zeros((more, self._counts.shape[1]), dtype=np.int64)])
        np.add.at(self._counts, (place[kind >= 0], kind[kind >= 0]), 1)

    def per_h(self, horizon_s: float) -> npt.NDArray[np.float64]:
        """Rates of the intervals up to the horizon, which may cut the last one short; shape (intervals, types)."""
        starts_s = np.arange(len(self._counts)) * self.interval_s
        ends_s = np.minimum(starts_s + self.interval_s, horizon_s)
        lengths_s = np.maximum(ends_s - starts_s, min(MIN_INTERVAL_S, self.interval_s))
        return np.asarray(self._counts / (lengths_s[:, None] / SECONDS_PER_H))


def true_demand(
    scenario: Scenario, source: TraceSource, interval_s: float, horizon_s: float
) -> list[tuple[Demand, float]]:
    """What really arrived in each interval, and the length of the interval [s]."""
    intervals = int(np.ceil(horizon_s / interval_s))
    types = len(scenario.types)
    tokens = TokenMoments.zeros(intervals, types)
    starts = to_ticks_array(interval_s * np.arange(1, intervals, dtype=np.float64))

    def add(trace: Trace) -> None:
        kind = classify(scenario, trace)
        place = np.searchsorted(starts, to_ticks_array(trace.arrival_s), side="right"), kind
        each = TokenMoments.of(trace.input_tokens, trace.output_tokens)
        for sums, values in zip(tokens.sums, each.sums, strict=True):
            np.add.at(sums, place, values)

    for chunk in source.chunks():
        add(chunk)
    found = []
    for number in range(intervals):
        length_s = min(interval_s, horizon_s - number * interval_s)
        found.append((demand_of_sums(tokens[number], length_s), length_s))
    return found


def demand_of_sums(tokens: TokenMoments, length_s: float) -> Demand:
    """What arrived in some time, from its sums by type, shape (6, types)."""
    return Demand(arrival_per_h=tokens.requests * SECONDS_PER_H / length_s, tokens=tokens.mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrived:
    """What arrived, window by window.

    Attributes
    ----------
    tokens
        Sums over the requests, shape (6, types, windows).
    """

    window_s: float
    tokens: TokenMoments

    @property
    def length_s(self) -> float:
        return self.window_s * int(self.tokens.sums.shape[2])

    def demand(self) -> Demand:
        """Mean of all."""
        return demand_of_sums(self.tokens.total(), self.length_s)

    def in_windows_of(self, length_s: float) -> "Arrived":
        """The same in windows about so long; never shorter than they are, and at least one."""
        windows = self.tokens.sums.shape[2]
        each = min(max(1, round(length_s / self.window_s)), windows)
        starts = np.arange(0, windows, each)
        sums = np.add.reduceat(self.tokens.sums, starts, axis=2)
        return Arrived(window_s=self.window_s * each, tokens=TokenMoments(sums))


class ArrivedSums:
    """Counts requests into windows of one length, batch by batch."""

    def __init__(self, types: int, window_s: float, horizon_s: float) -> None:
        self._window_s = window_s
        self._tokens = TokenMoments.zeros(types, max(1, int(np.ceil(horizon_s / window_s))))

    def add(
        self,
        arrival_s: npt.NDArray[np.float64],
        query_type: npt.NDArray[np.int32],
        input_tokens: npt.NDArray[np.int64],
        output_tokens: npt.NDArray[np.int64],
    ) -> None:
        """Take in requests; all of one length."""
        _, types, windows = self._tokens.sums.shape
        place = np.minimum((arrival_s / self._window_s).astype(np.int64), windows - 1)
        cell = query_type * windows + place
        for sums, values in zip(self._tokens.sums, TokenMoments.of(input_tokens, output_tokens).sums, strict=True):
            sums += np.bincount(cell, weights=values, minlength=types * windows).reshape(types, windows)

    def arrived(self) -> Arrived:
        return Arrived(window_s=self._window_s, tokens=self._tokens)
