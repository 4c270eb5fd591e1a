"""The independent plan checker.

Every plan, whoever made it, is judged here from the problem data alone: nothing is shared with the planners, neither
their arrays nor their arithmetic. Under `paper` rows memory and compute are recomputed in GB and TFLOP/s from models
and tiers; under `batching` rows they are the rows that the problem states.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

from simulator.catalog.configuration import PairKey
from simulator.errors import InputError
from simulator.planning.plan import Deployment, Plan, describe, duplicate_pairs
from simulator.planning.problem import CapacityRows, PlanningProblem

TOLERANCE = 1e-6  # relative to the size of the row, which is its limit: what MILP solvers call feasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken constraint: `value` should have been at most (or, for equalities, equal to) `limit`."""

    constraint: str
    subject: str
    value: float
    limit: float
    unit: str

    @property
    def excess(self) -> float:
        return abs(self.value - self.limit)

    def __str__(self) -> str:
        return (
            f"{self.constraint} of {self.subject}: {self.value:.9g} {self.unit}, limit {self.limit:.9g} {self.unit} "
            f"(off by {self.excess:.3g})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The checker's verdict: broken constraints and the recomputed cost of one period."""

    violations: tuple[Violation, ...]
    cost_usd: float
    cost_parts_usd: dict[str, float]

    @property
    def accepted(self) -> bool:
        return not self.violations


class _Judge:
    """Collects violations; one place for the tolerance."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def at_most(
        self, constraint: str, subject: str, value: float, limit: float, unit: str, *, size: float | None = None
    ) -> None:
        """`size` is that of the row where it is not the limit: of a share one, of a count of replicas nothing."""
        if not value <= limit + TOLERANCE * (abs(limit) if size is None else size):  # also catches NaN
            self.violations.append(
                Violation(constraint=constraint, subject=subject, value=value, limit=limit, unit=unit)
            )

    def equal(self, constraint: str, subject: str, value: float, target: float, unit: str) -> None:
        if not abs(value - target) <= TOLERANCE * abs(target):
            self.violations.append(
                Violation(constraint=constraint, subject=subject, value=value, limit=target, unit=unit)
            )


def check(problem: PlanningProblem, plan: Plan) -> CheckReport:
    """Recompute every constraint and the cost of a plan.

    Raises
    ------
    InputError
        If the plan speaks of query types, configurations or deployments that the problem does not have.
    """
    _refuse_unknown_names(problem, plan)
    judge = _Judge()
    for model, tier in duplicate_pairs(plan.deployments):
        judge.at_most("configurations per model and tier", f"{model} on {tier}", 2, 1, "configurations")
    shares = _shares(plan)
    _check_demand(problem, plan, shares, judge)
    for deployment in plan.deployments:
        _check_deployment(problem, deployment, shares, judge)
    parts = _cost_parts(problem, plan, shares)
    _check_totals(problem, plan, shares, parts, judge)
    cost_usd = math.fsum(parts.values())
    judge.equal("stated cost", "the plan", plan.cost_usd, cost_usd, "USD")
    if plan.bound_usd is not None:
        judge.at_most("stated bound", "the plan", plan.bound_usd, cost_usd, "USD")
    return CheckReport(violations=tuple(judge.violations), cost_usd=cost_usd, cost_parts_usd=parts)


def _shares(plan: Plan) -> dict[tuple[str, PairKey], float]:
    shares: dict[tuple[str, PairKey], float] = defaultdict(float)
    for route in plan.routing:
        shares[route.query_type, (route.model, route.tier)] += route.share
    return shares


def _refuse_unknown_names(problem: PlanningProblem, plan: Plan) -> None:
    complaints = []
    types = {query_type.name for query_type in problem.query_types}
    keys = set(problem.configurations)
    pairs = {deployment.configuration.pair for deployment in plan.deployments}
    for d, deployment in enumerate(plan.deployments):
        if deployment.configuration not in keys:
            text = describe(deployment.configuration)
            complaints.append(f"deployments[{d}]: {text} is no configuration of problem {problem.name}")
    for r, route in enumerate(plan.routing):
        if route.query_type not in types:
            complaints.append(f"routing[{r}].query_type: problem {problem.name} has no query type {route.query_type!r}")
        if (route.model, route.tier) not in pairs:
            complaints.append(f"routing[{r}]: {route.model} on {route.tier} is not among the plan's deployments")
    for u, (name, _) in enumerate(plan.unmet):
        if name not in types:
            complaints.append(f"unmet[{u}].query_type: problem {problem.name} has no query type {name!r}")
    if complaints:
        raise InputError(complaints)


def _check_demand(
    problem: PlanningProblem, plan: Plan, shares: dict[tuple[str, PairKey], float], judge: _Judge
) -> None:
    """Shares, unmet demand, mean delay and error of each query type."""
    column = {deployment.configuration.pair: deployment.configuration for deployment in plan.deployments}
    unmet: dict[str, float] = defaultdict(float)
    for name, share in plan.unmet:
        unmet[name] += share
    for i, query_type in enumerate(problem.query_types):
        own = {pair: share for (name, pair), share in shares.items() if name == query_type.name}
        for (model, tier), share in own.items():
            judge.at_most("negative share", f"{query_type.name} on {model} on {tier}", -share, 0.0, "", size=1)
            a = problem.configuration_index[column[model, tier]]
            if share > TOLERANCE and not problem.allowed[i, a]:
                judge.at_most("route that is ruled out", f"{query_type.name} on {model} on {tier}", share, 0.0, "")
        judge.at_most("negative unmet share", query_type.name, -unmet[query_type.name], 0.0, "", size=1)
        judge.at_most("unmet share", query_type.name, unmet[query_type.name], query_type.unmet_cap, "", size=1)
        judge.equal("sum of shares", query_type.name, math.fsum(own.values()) + unmet[query_type.name], 1.0, "")
        columns = {pair: problem.configuration_index[column[pair]] for pair in own}
        delay_s = math.fsum(float(problem.delay_s[i, columns[pair]]) * share for pair, share in own.items())
        error = math.fsum(float(problem.error[i, columns[pair]]) * share for pair, share in own.items())
        judge.at_most("mean delay", query_type.name, delay_s, query_type.delay_slo_s, "s")
        # A limit of zero allows the error that rounding leaves in the shares.
        worst = max((float(problem.error[i, a]) for a in columns.values()), default=0.0)
        judge.at_most(
            "mean error", query_type.name, error, query_type.error_slo, "", size=query_type.error_slo or worst
        )


def _check_deployment(
    problem: PlanningProblem, deployment: Deployment, shares: dict[tuple[str, PairKey], float], judge: _Judge
) -> None:
    configuration = deployment.configuration
    subject = describe(configuration)
    a = problem.configuration_index[configuration]
    judge.at_most("replicas", subject, deployment.replicas, problem.max_replicas, "replicas", size=0)
    judge.equal("whole replicas", subject, deployment.replicas, int(deployment.replicas), "replicas")
    routed = [
        (i, query_type, shares[query_type.name, configuration.pair])
        for i, query_type in enumerate(problem.query_types)
        if (query_type.name, configuration.pair) in shares
    ]
    if problem.capacity_rows is CapacityRows.PAPER:
        model = problem.model_by_name[configuration.model]
        tier = problem.tier_by_name[configuration.tier]
        tokens_per_s = [(q.input_tokens + q.output_tokens) * q.arrival_per_h / 3600.0 * share for _, q, share in routed]
        kv_gb = math.fsum(
            model.kv_mb_per_token / 1000.0 * tokens * float(problem.delay_s[i, a])
            for (i, _, _), tokens in zip(routed, tokens_per_s, strict=True)
        )
        room_gb = deployment.replicas * (configuration.gpus * tier.memory_gb - tier.weight_factor * model.weights_gb)
        tflops = 2.0 * model.parameters_b / 1000.0 * math.fsum(tokens_per_s)
        supply = deployment.replicas * configuration.gpus * tier.compute_efficiency * tier.compute_tflops
        supply *= float(problem.cap[a])
        judge.at_most("KV memory", subject, kv_gb, room_gb, "GB")
        judge.at_most("compute", subject, tflops, supply, "TFLOP/s")
    else:
        load = math.fsum(float(problem.load[i, a]) * share for i, _, share in routed)
        kv = math.fsum(float(problem.kv[i, a]) * share for i, _, share in routed)
        judge.at_most("load", subject, load, float(problem.cap[a]) * deployment.replicas, "replicas")
        judge.at_most("KV cache", subject, kv, deployment.replicas, "replicas")


def _cost_parts(problem: PlanningProblem, plan: Plan, shares: dict[tuple[str, PairKey], float]) -> dict[str, float]:
    hours = problem.period_h
    storage_usd_per_gb = hours * problem.storage_price_usd_per_gb_h
    types = {query_type.name: query_type for query_type in problem.query_types}
    column = {deployment.configuration.pair: deployment.configuration for deployment in plan.deployments}
    rental, weights_gb = [], []
    for deployment in plan.deployments:
        tier = problem.tier_by_name[deployment.configuration.tier]
        rental.append(hours * tier.price_usd_per_gpu_h * deployment.configuration.gpus * deployment.replicas)
        weights_gb.append(tier.weight_factor * problem.model_by_name[deployment.configuration.model].weights_gb)
    tokens_gb, delay = [], []
    for (name, pair), share in shares.items():
        q = types[name]
        a = problem.configuration_index[column[pair]]
        tokens_gb.append(q.token_storage_gb_per_token * (q.input_tokens + q.output_tokens) * q.arrival_per_h * share)
        delay_s = float(problem.delay_s[problem.type_index[name], a])
        delay.append(hours * q.delay_penalty_usd_per_query_s * q.arrival_per_h * delay_s * share)
    unmet = [
        hours * types[name].unmet_penalty_usd_per_query * types[name].arrival_per_h * share
        for name, share in plan.unmet
    ]
    return {
        "rental": math.fsum(rental),
        "model_storage": storage_usd_per_gb * math.fsum(weights_gb),
        "token_storage": storage_usd_per_gb * math.fsum(tokens_gb),
        "delay_penalty": math.fsum(delay),
        "unmet_penalty": math.fsum(unmet),
    }


def _check_totals(
    problem: PlanningProblem,
    plan: Plan,
    shares: dict[tuple[str, PairKey], float],
    parts: dict[str, float],
    judge: _Judge,
) -> None:
    weights_gb = math.fsum(
        problem.tier_by_name[d.configuration.tier].weight_factor
        * problem.model_by_name[d.configuration.model].weights_gb
        for d in plan.deployments
    )
    types = {query_type.name: query_type for query_type in problem.query_types}
    tokens_gb = math.fsum(
        q.token_storage_gb_per_token * (q.input_tokens + q.output_tokens) * q.arrival_per_h * share
        for (name, _), share in shares.items()
        for q in (types[name],)
    )
    judge.at_most("storage", "the plan", weights_gb + tokens_gb, problem.storage_capacity_gb, "GB")
    spent = parts["rental"] + parts["model_storage"] + parts["token_storage"]
    judge.at_most("budget", "the plan", spent, problem.budget_usd, "USD")
