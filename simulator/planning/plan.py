"""The plan: deployments, routing shares and unmet shares, with its cost and its proof."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from simulator.catalog.configuration import Configuration, PairKey
from simulator.errors import InputError
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

SHARE_EPSILON = 1e-9  # shares below this are solver noise and are not written into a plan


class PlanStatus(StrEnum):
    """How a policy stopped."""

    OPTIMAL = "optimal"  # proven within the stopping rule's gap
    FEASIBLE = "feasible"  # finished by its own rule, without a proof
    TIME_LIMIT = "time_limit"  # the wall-clock limit was hit; the plan is the best so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Replicas of one configuration."""

    configuration: Configuration
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Share of a query type that goes to a deployment."""

    query_type: str
    model: str
    tier: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to rent and where to send the queries.

    `cost_usd` is the cost of one period as the policy computed it; `bound_usd` is a proven lower bound, None where the
    policy proves none. `seconds` is machine time and no part of the result (None: not recorded).
    """

    problem: str
    policy: str
    status: PlanStatus
    cost_usd: float
    bound_usd: float | None
    seconds: float | None
    deployments: tuple[Deployment, ...]
    routing: tuple[Route, ...]
    unmet: tuple[tuple[str, float], ...]  # (query type, share), only shares above zero

    @property
    def gap(self) -> float | None:
        """Relative distance of the cost from the proven bound, None without a bound."""
        if self.bound_usd is None:
            return None
        distance_usd = max(0.0, self.cost_usd - self.bound_usd)
        if distance_usd == 0:
            return 0.0
        return distance_usd / abs(self.cost_usd) if self.cost_usd else math.inf

    @property
    def gpus(self) -> int:
        return sum(deployment.configuration.gpus * deployment.replicas for deployment in self.deployments)

    def replicas_by_key(self) -> dict[Configuration, int]:
        return {deployment.configuration: deployment.replicas for deployment in self.deployments}


@dataclass(frozen=True, slots=True)
class PlanArrays:
    """A plan as arrays over the indices of its problem: replicas (A,), share (I, A), unmet (I,)."""

    replicas: IntArray
    share: FloatArray
    unmet: FloatArray


def plan_cost_usd(problem: PlanningProblem, arrays: PlanArrays) -> dict[str, float]:
    """Cost of one period by its parts, in the order in which the paper's objective lists them."""
    deployed = arrays.replicas > 0
    served = arrays.share.sum(axis=1)
    return {
        "rental": float(problem.rent_usd @ arrays.replicas),
        "model_storage": float(problem.model_storage_usd @ deployed),
        "token_storage": float(problem.token_storage_usd @ served),
        "delay_penalty": float((problem.delay_penalty_usd * arrays.share).sum()),
        "unmet_penalty": float(problem.unmet_usd @ arrays.unmet),
    }


def build_plan(
    problem: PlanningProblem,
    arrays: PlanArrays,
    *,
    policy: str,
    status: PlanStatus,
    seconds: float,
    bound_usd: float | None = None,
) -> Plan:
    """Turn arrays into a plan, free of solver noise: shares are clipped at zero and rescaled to sum to one."""
    share = np.where(arrays.share > SHARE_EPSILON, arrays.share, 0.0)
    unmet = np.where(arrays.unmet > SHARE_EPSILON, arrays.unmet, 0.0)
    total = share.sum(axis=1) + unmet
    share, unmet = share / total[:, None], unmet / total
    clean = PlanArrays(arrays.replicas, share, unmet)
    routing = [
        Route(
            query_type=problem.query_types[i].name,
            model=problem.configurations[a].model,
            tier=problem.configurations[a].tier,
            share=float(share[i, a]),
        )
        for i, a in zip(*np.nonzero(share), strict=True)
    ]
    return Plan(
        problem=problem.name,
        policy=policy,
        status=status,
        cost_usd=math.fsum(plan_cost_usd(problem, clean).values()),
        bound_usd=bound_usd,
        seconds=seconds,
        deployments=tuple(
            Deployment(configuration=problem.configurations[a], replicas=int(arrays.replicas[a]))
            for a in np.flatnonzero(arrays.replicas)
        ),
        routing=tuple(routing),
        unmet=tuple((problem.query_types[i].name, float(unmet[i])) for i in np.flatnonzero(unmet)),
    )


def plan_arrays(problem: PlanningProblem, plan: Plan) -> PlanArrays:
    """Express a plan in the indices of `problem`.

    Raises
    ------
    InputError
        If the plan names a query type, configuration or route that the problem does not have.
    """
    problems: list[str] = []
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    share = np.zeros((len(problem.query_types), len(problem.configurations)))
    unmet = np.zeros(len(problem.query_types))
    deployed: dict[PairKey, int] = {}
    for deployment in plan.deployments:
        index = problem.configuration_index.get(deployment.configuration)
        if index is None:
            problems.append(f"deployment {describe(deployment.configuration)} is no configuration of {problem.name}")
        else:
            replicas[index] += deployment.replicas
            deployed[deployment.configuration.pair] = index
    for route in plan.routing:
        i = problem.type_index.get(route.query_type)
        a = deployed.get((route.model, route.tier))
        if i is None:
            problems.append(f"routing names query type {route.query_type!r}, which {problem.name} does not have")
        elif a is None:
            problems.append(f"{route.query_type} is routed to {route.model} on {route.tier}, which is not deployed")
        else:
            share[i, a] += route.share
    for name, value in plan.unmet:
        i = problem.type_index.get(name)
        if i is None:
            problems.append(f"unmet names query type {name!r}, which {problem.name} does not have")
        else:
            unmet[i] += value
    if problems:
        raise InputError(problems)
    return PlanArrays(replicas, share, unmet)


def describe(configuration: Configuration) -> str:
    """Short text of a configuration: `llama-3.1-8b on h100-80-fp16 TP2 PP1`."""
    text = str(configuration.deployment_key)
    if configuration.tpot_target_s is not None:
        text += f" at {configuration.tpot_target_s * 1000:g} ms/token"
    return text


def duplicate_pairs(deployments: Sequence[Deployment]) -> list[PairKey]:
    """Pairs (model, tier) that appear more than once."""
    seen: set[PairKey] = set()
    twice: list[PairKey] = []
    for deployment in deployments:
        pair = deployment.configuration.pair
        if pair in seen:
            twice.append(pair)
        seen.add(pair)
    return twice
