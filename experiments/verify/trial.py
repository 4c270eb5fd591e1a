"""One plan, fixed, on one draw of arrivals: what it costs and which SLOs it keeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.measures.cost import fleet_cost_by_phase, request_cost
from experiments.replay.controller import FixedController
from experiments.replay.run import engine_of, reality_of, world_of
from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import PercentileSlo, SloCount, count_slo, requests_needed
from experiments.verify.draws import Draw
from simulator.engine import EngineSettings
from simulator.engine.results import RunResult
from simulator.planning.plan import Plan
from simulator.units import SECONDS_PER_H


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """How a plan did.

    Attributes
    ----------
    counts
        Of each percentile SLO, with the index of its query type.
    cost_usd_per_h
        While requests arrive, from time zero to the horizon: rent of the fleet, storage of its weights and of tokens,
        delay and unmet penalties. The start-up before and the drain after are paid once, however long it serves.
    """

    draw: str
    counts: tuple[tuple[int, SloCount], ...]
    cost_usd_per_h: float
    run: RunResult

    @property
    def slo_ratio(self) -> float:
        """The largest share beyond a limit over the share that may be: 1 or less where every SLO holds."""
        return max((count.slo_ratio for _, count in self.counts), default=0.0)

    @property
    def holds(self) -> bool:
        return all(count.held for _, count in self.counts)

    @property
    def that_tell(self) -> "Trial":
        """Of the SLOs with requests enough to be told from luck."""
        kept = tuple((i, count) for i, count in self.counts if count.requests >= requests_needed(count.slo.level))
        return replace(self, counts=kept)

    @property
    def late(self) -> tuple[float, ...]:
        """Share of late requests by SLO."""
        return tuple(count.share for _, count in self.counts)

    @property
    def worst(self) -> tuple[int, SloCount] | None:
        """The SLO that is with the largest share late for what may be."""
        return max(self.counts, key=lambda item: item[1].slo_ratio, default=None)


class Bench:
    """Tries plans of one scenario, and counts how often.

    Parameters
    ----------
    slos
        Of each query type.
    guard
        Limits are taken as so much of what is asked, so that a plan holds by a margin.
    """

    def __init__(self, scenario: Scenario, slos: Sequence[Sequence[PercentileSlo]], guard: float) -> None:
        self._scenario, self._slos, self._guard = scenario, slos, guard
        self._chosen, functions = engine_of(scenario)
        self._reality = reality_of(scenario)
        self._world = world_of(scenario, self._reality, functions)
        self._balancer = functions.router or scenario.file.engine.balancer
        self.simulations = 0

    def run(self, plan: Plan, draw: Draw) -> RunResult:
        """The plan from the first arrival to the last, never renewed."""
        self.simulations += 1
        settings = EngineSettings(
            interval_s=draw.horizon_s,
            horizon_s=draw.horizon_s,
            grace_s=self._scenario.file.engine.grace_s,
            balancer=self._balancer,
            seed=draw.seed,
        )
        engine = self._chosen.engine(draw.workload, FixedController(plan), self._world.offer, settings, self._reality)
        return engine.run()

    def trial(self, plan: Plan, draw: Draw, *, guard: float | None = None) -> Trial:
        """Run the plan and count; `guard` instead of the bench's own."""
        run = self.run(plan, draw)
        factor = self._guard if guard is None else guard
        counts = tuple(
            (i, count_slo(run.requests, i, slo, factor)) for i, of_type in enumerate(self._slos) for slo in of_type
        )
        return Trial(draw=draw.name, counts=counts, cost_usd_per_h=self._cost_usd_per_h(run), run=run)

    def _cost_usd_per_h(self, run: RunResult) -> float:
        """Of the time in which requests arrive: neither the start-up before it nor the drain after it."""
        requests, types = run.requests, len(self._scenario.types)
        served, of_type = requests.served, requests.query_type
        tokens = (requests.input_tokens + requests.output_tokens).astype(np.float64)
        parts = request_cost(
            self._scenario,
            tokens=np.bincount(of_type[served], weights=tokens[served], minlength=types),
            e2e_s=np.bincount(of_type[served], weights=requests.e2e_s[served], minlength=types),
            unserved=np.bincount(of_type[~served], minlength=types),
        )
        _, fleet_usd, _ = fleet_cost_by_phase(self._scenario, run)
        return (fleet_usd + math.fsum(float(part) for part in parts.values())) * SECONDS_PER_H / run.horizon_s
