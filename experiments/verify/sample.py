"""The requests that are learned from, by query type, and what they need of each configuration."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from experiments.replay.controller import build_problem
from experiments.replay.run import Arriving
from experiments.scenario.demand import MIN_ARRIVAL_PER_H, Demand, expected_demand
from experiments.scenario.scenario import Scenario
from experiments.verify.draws import Draw, draw_of, whole
from simulator.delay import StepCost
from simulator.moments import TokenMoments
from simulator.planning.problem import PlanningProblem
from simulator.ticks import TICKS_PER_S
from simulator.units import SECONDS_PER_H

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OfType:
    """Arrival times [s], input and output tokens of the requests of one type, all of one length."""

    arrival_s: FloatArray
    inputs: FloatArray
    outputs: FloatArray

    def __len__(self) -> int:
        return len(self.arrival_s)

    def work_s(self, step: StepCost) -> FloatArray:
        """Of each request."""
        return step.work_s(self.inputs, self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Requests by query type, over `horizon_s`."""

    types: tuple[OfType, ...]
    horizon_s: float

    @classmethod
    def of(cls, draw: Draw) -> Self:
        work = draw.workload
        arrival_s = work.arrival_tick / TICKS_PER_S
        masks = [work.query_type == index for index in range(len(work.types))]
        return cls(
            types=tuple(
                OfType(
                    arrival_s=arrival_s[of_type],
                    inputs=work.input_tokens[of_type].astype(np.float64),
                    outputs=work.output_tokens[of_type].astype(np.float64),
                )
                for of_type in masks
            ),
            horizon_s=draw.horizon_s,
        )

    def demand(self, scenario: Scenario) -> Demand:
        """Mean rates and moments. A type without requests keeps a route: its expected lengths at a token rate."""
        found = expected_demand(scenario.types)
        for i, of_type in enumerate(self.types):
            if not len(of_type):
                found.arrival_per_h[i] = MIN_ARRIVAL_PER_H
                continue
            found.arrival_per_h[i] = len(of_type) * SECONDS_PER_H / self.horizon_s
            found.tokens.sums[:, i] = TokenMoments.of(of_type.inputs, of_type.outputs).sums.mean(axis=1)
        return found


def mean_problem(scenario: Scenario, arriving: Arriving, *, period_h: float) -> PlanningProblem:
    """The planning problem of a period of the mean demand of a trace."""
    sample = Sample.of(draw_of(scenario, whole(arriving.source), "the trace", seed=0))
    return build_problem(scenario, sample.demand(scenario), name=f"{scenario.name}@trace", period_h=period_h)
