"""The requests that are learned from, by query type, and what they need of each configuration."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from experiments.demand import MIN_ARRIVAL_PER_H, SECONDS_PER_H, Demand, expected_demand
from experiments.scenario import Scenario
from experiments.verify.draws import Draw
from simulator.delay import StepCost
from simulator.problem import Configuration
from simulator.ticks import TICKS_PER_S

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
        """Replica seconds of each request beside its share of the base of the steps (`simulator.batching`)."""
        return work_s(step, self.inputs, self.outputs)


def work_s(step: StepCost, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    """Replica seconds of requests: v = b h + c f + d (h f + f^2 / 2)."""
    context = inputs * outputs + outputs**2 / 2
    return step.prefill_s_per_token * inputs + step.decode_s_per_sequence * outputs + step.context_s_per_token * context


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
                    arrival_s=arrival_s[own],
                    inputs=work.input_tokens[own].astype(np.float64),
                    outputs=work.output_tokens[own].astype(np.float64),
                )
                for own in masks
            ),
            horizon_s=draw.horizon_s,
        )

    def demand(self, scenario: Scenario) -> Demand:
        """Mean rates and moments. A type without requests keeps a route: its expected lengths at a token rate."""
        found = expected_demand(scenario.types)
        for i, own in enumerate(self.types):
            if not len(own):
                found.arrival_per_h[i] = MIN_ARRIVAL_PER_H
                continue
            found.arrival_per_h[i] = len(own) * SECONDS_PER_H / self.horizon_s
            found.input_tokens[i] = own.inputs.mean()
            found.output_tokens[i] = own.outputs.mean()
            found.input_output[i] = (own.inputs * own.outputs).mean()
            found.output_squared[i] = (own.outputs**2).mean()
        return found


def step_of(scenario: Scenario, configuration: Configuration) -> StepCost:
    """What a step of one replica costs at nominal."""
    c = configuration
    model, tier = scenario.catalog.models[c.model], scenario.catalog.tiers[c.tier]
    return scenario.delay_model.step_cost(model, tier, c.tensor_parallel, c.pipeline_parallel)
