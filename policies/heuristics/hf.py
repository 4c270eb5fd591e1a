"""`hf`: what arXiv 2604.07472 calls a homogeneous fleet. How it works in detail is our reading."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from policies.heuristics.adaptive import Agh
from policies.heuristics.infeasible import over_cap
from policies.heuristics.routing import cheapest
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import IntArray, PlanningProblem

STARTS = 4  # of AGH on each tier
SHOWN = 3  # tiers, and types of each, that a message names


@dataclass(frozen=True, slots=True)
class Hf:
    """Homogeneous fleet, as we read it: the cheapest plan whose GPUs are all of one tier.

    For each tier AGH plans with the configurations on it alone (any models, any parallel degrees), from a few starts.
    A fleet of nothing counts as one too.
    """

    @property
    def name(self) -> str:
        return "hf"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Plan on each tier in turn with up to 4 starts; `stop` and `seed` are those of AGH, `incumbent` plays no part.

        When the time limit is hit, the remaining tiers are left out and the plan has the status `time_limit`.

        Raises
        ------
        InfeasibleError
            If no tier alone was found to keep the unmet caps; the message says why the first ones do not.
        """
        started = time.perf_counter()
        best = cheapest(problem, [np.zeros(len(problem.configurations), dtype=np.int64)])
        best_usd = np.inf if best is None else math.fsum(plan_cost_usd(problem, best).values())
        failed: list[str] = []
        timed_out = False
        tier_of = np.array([configuration.tier for configuration in problem.configurations])
        for tier in problem.tiers:
            columns = np.flatnonzero(tier_of == tier.name)
            if len(columns) == 0:
                continue
            left_s = None if stop.time_limit_s is None else stop.time_limit_s - (time.perf_counter() - started)
            if left_s is not None and left_s <= 0:
                timed_out = True
                break
            part = _part(problem, columns)
            rule = replace(stop, starts=min(stop.starts, STARTS), time_limit_s=left_s)
            # Not AGH's `plan`: for each tier that fails, that would search once more for the reason.
            point, late = Agh().search(part, None, rule, seed)
            timed_out = timed_out or late
            unmet = np.ones(len(problem.query_types)) if point is None else point.placement.unmet
            if point is None or point.excess > 0:
                short = [problem.query_types[i].name for i in over_cap(problem, unmet)]
                more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
                failed.append(f"{tier.name} leaves too much unmet of {', '.join(short[:SHOWN])}{more}")
            elif point.score_usd < best_usd:
                best, best_usd = _in_full(problem, columns, point.placement.arrays()), point.score_usd
        if best is None:
            raise InfeasibleError(self._complaints(problem, failed, timed_out, stop))
        return build_plan(
            problem,
            best,
            policy=self.name,
            status=PlanStatus.TIME_LIMIT if timed_out else PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )

    def _complaints(
        self, problem: PlanningProblem, failed: list[str], timed_out: bool, stop: StoppingRule
    ) -> list[str]:
        within_time = f" in {stop.time_limit_s} s" if timed_out else ""
        more = [f"and so on for {len(failed) - SHOWN} more tiers"] if len(failed) > SHOWN else []
        return [
            f"problem {problem.name}: {self.name} found no plan that keeps the unmet caps with a single GPU tier"
            + within_time,
            *failed[:SHOWN],
            *more,
        ]


def _part(problem: PlanningProblem, columns: IntArray) -> PlanningProblem:
    """The problem with these configurations alone."""
    return replace(
        problem,
        configurations=tuple(problem.configurations[a] for a in columns),
        delay_s=problem.delay_s[:, columns],
        error=problem.error[:, columns],
        load=problem.load[:, columns],
        kv=problem.kv[:, columns],
        cap=problem.cap[columns],
        allowed=problem.allowed[:, columns],
    )


def _in_full(problem: PlanningProblem, columns: IntArray, arrays: PlanArrays) -> PlanArrays:
    """A plan for these configurations alone, in the indices of the problem."""
    replicas, share = np.zeros(len(problem.configurations), dtype=np.int64), np.zeros(problem.delay_s.shape)
    replicas[columns], share[:, columns] = arrays.replicas, arrays.share
    return PlanArrays(replicas, share, arrays.unmet)
