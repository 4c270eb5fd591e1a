"""The whole planning problem as a mixed-integer linear program in Pyomo.

Equations and symbols: docs/design.md and docs/planning.md (arXiv 2604.07472, problem P). Shares are indexed by
configuration, which keeps the model linear; one function adds one family of constraints. Three things make it stronger
than the bare equations and change no optimum: dominated configurations are left out and replicas bounded by what the
demand could use (policies/heuristics/dominance.py), the linking rows are tight, and `cover` rows cut off fractional
deployments.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyomo.environ as pyo

from policies.heuristics.coverage import largest_share
from policies.heuristics.dominance import dominated, useful_replicas
from policies.highs import unit_of
from simulator.planning.plan import PlanArrays
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

COVER_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the delay limit against the error limit, in the cover rows
# A configuration that is over by this little still counts as good: it keeps k below some 1000, and a row with a larger
# k forbids next to nothing.
GOOD_SLACK = 1e-3
CAP_SLACK = 1e-6  # by which an unmet share may be above its cap in a plan


@dataclass(frozen=True, slots=True, kw_only=True)
class MilpModel:
    """The Pyomo model with what is needed to read its solution."""

    model: pyo.ConcreteModel
    problem: PlanningProblem
    usable: IntArray  # configurations in the model, as indices of the problem


def usable_configurations(problem: PlanningProblem) -> IntArray:
    """Configurations that a plan may need: they can serve some type, and no other one does so as well for less."""
    return np.flatnonzero(~dominated(problem)).astype(np.int64)


def build_model(problem: PlanningProblem) -> MilpModel:
    """State the problem. Names of the blocks are those of the constraint families in the design."""
    usable, largest, useful = usable_configurations(problem), largest_share(problem), useful_replicas(problem)
    model = pyo.ConcreteModel(name=problem.name)
    model.A = pyo.Set(initialize=[int(a) for a in usable], ordered=True)
    model.IA = _routes(usable, largest)
    _fleet(model, useful)
    by_type, by_configuration = _shares(model, problem)
    _objective(model, problem)
    _demand(model, by_type)
    _limits(model, problem, by_type)
    _capacity(model, problem, by_configuration)
    _deployment(model, problem, useful)
    _linking(model, largest)
    _cover(model, problem, by_type)
    _totals(model, problem)
    return MilpModel(model=model, problem=problem, usable=usable)


def state_fleet(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    """State the fleet alone, without anything that is served."""
    useful = useful_replicas(problem)
    model.A = pyo.Set(initialize=[int(a) for a in usable_configurations(problem)], ordered=True)
    _fleet(model, useful)
    _deployment(model, problem, useful)


def state_routing(block: pyo.Block, problem: PlanningProblem, model: pyo.ConcreteModel) -> None:
    """State one routing, with variables of its own, over the fleet of `model`."""
    largest = largest_share(problem)
    block.A, block.r, block.w = list(model.A), dict(model.r.items()), dict(model.w.items())
    block.IA = _routes(block.A, largest)
    by_type, by_configuration = _shares(block, problem)
    _demand(block, by_type)
    _limits(block, problem, by_type)
    _capacity(block, problem, by_configuration)
    _linking(block, largest)
    _cover(block, problem, by_type)
    _totals(block, problem)


def fleet_cost(model: pyo.ConcreteModel, problem: PlanningProblem, unit_usd: float) -> pyo.Expression:
    """Rent and weights, in units of `unit_usd`."""
    rent, weights = problem.rent_usd / unit_usd, problem.model_storage_usd / unit_usd
    return pyo.quicksum(float(rent[a]) * model.r[a] for a in model.A) + pyo.quicksum(
        float(weights[a]) * model.w[a] for a in model.A
    )


def routing_cost(block: pyo.Block, problem: PlanningProblem, unit_usd: float) -> pyo.Expression:
    """Serving, and not serving, in units of `unit_usd`."""
    serving = (problem.delay_penalty_usd + problem.token_storage_usd[:, None]) / unit_usd
    unmet = problem.unmet_usd / unit_usd
    return pyo.quicksum(float(serving[i, a]) * block.x[i, a] for i, a in block.IA) + pyo.quicksum(
        float(unmet[i]) * block.u[i] for i in block.u
    )


def spending(model: pyo.ConcreteModel, problem: PlanningProblem, unit_usd: float) -> pyo.Expression:
    """What counts against the budget, in units of `unit_usd`."""
    tokens = problem.token_storage_usd / unit_usd
    return fleet_cost(model, problem, unit_usd) + pyo.quicksum(float(tokens[i]) * model.x[i, a] for i, a in model.IA)


def _routes(usable: Iterable[int], largest: FloatArray) -> pyo.Set:
    types = range(len(largest))
    return pyo.Set(initialize=[(i, int(a)) for i in types for a in usable if largest[i, a] > 0], ordered=True)


def _fleet(model: pyo.ConcreteModel, useful: IntArray) -> None:
    model.w = pyo.Var(model.A, domain=pyo.Binary)
    model.r = pyo.Var(model.A, domain=pyo.NonNegativeIntegers, bounds=lambda _, a: (0, int(useful[a])))


def _shares(block: pyo.Block, problem: PlanningProblem) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """The variables of a routing; and its configurations by type, its types by configuration."""
    types = range(len(problem.query_types))
    block.x = pyo.Var(block.IA, bounds=(0.0, 1.0))
    block.u = pyo.Var(types, bounds=lambda _, i: (0.0, float(problem.unmet_cap[i])))
    by_type: dict[int, list[int]] = {i: [] for i in types}
    by_configuration: dict[int, list[int]] = {int(a): [] for a in block.A}
    for i, a in block.IA:
        by_type[i].append(a)
        by_configuration[a].append(i)
    return by_type, by_configuration


def _objective(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    unit_usd = problem.money_unit_usd
    model.cost = pyo.Objective(expr=fleet_cost(model, problem, unit_usd) + routing_cost(model, problem, unit_usd))


def _demand(model: pyo.ConcreteModel, by_type: dict[int, list[int]]) -> None:
    model.demand = pyo.Constraint(
        list(by_type), rule=lambda m, i: pyo.quicksum(m.x[i, a] for a in by_type[i]) + m.u[i] == 1
    )


def _limits(model: pyo.ConcreteModel, problem: PlanningProblem, by_type: dict[int, list[int]]) -> None:
    """Mean delay and error of each type, summed over the served shares; each limit is one."""
    served = [i for i, columns in by_type.items() if columns]
    for name, value, limit in (
        ("delay", problem.delay_s, problem.delay_slo_s),
        ("error", problem.error, problem.error_slo),
    ):
        unit = unit_of(limit)
        use, most = value / unit[:, None], limit / unit
        row = partial(_type_row, use=use, most=most, by_type=by_type)
        model.add_component(name, pyo.Constraint(served, rule=row))


def _type_row(
    m: pyo.ConcreteModel, i: int, *, use: FloatArray, most: FloatArray, by_type: dict[int, list[int]]
) -> pyo.Expression:
    return at_most(pyo.quicksum(float(use[i, a]) * m.x[i, a] for a in by_type[i]), float(most[i]))


def at_most(body: pyo.Expression, limit: float) -> pyo.Expression:
    """The row `body <= limit`. Where nothing in it has a coefficient but zero there is nothing to keep."""
    row = body <= limit
    return pyo.Constraint.Feasible if row is True else row


def _capacity(model: pyo.ConcreteModel, problem: PlanningProblem, by_configuration: dict[int, list[int]]) -> None:
    model.compute = pyo.Constraint(
        model.A,
        rule=lambda m, a: at_most(
            pyo.quicksum(float(problem.load[i, a]) * m.x[i, a] for i in by_configuration[a])
            - float(problem.cap[a]) * m.r[a],
            0.0,
        ),
    )
    model.memory = pyo.Constraint(
        model.A,
        rule=lambda m, a: pyo.quicksum(float(problem.kv[i, a]) * m.x[i, a] for i in by_configuration[a]) <= m.r[a],
    )


def _deployment(model: pyo.ConcreteModel, problem: PlanningProblem, useful: IntArray) -> None:
    """Deployed means some replicas, but no useless ones, not deployed none; at most one configuration per pair."""
    model.replicas = pyo.Constraint(model.A, rule=lambda m, a: m.r[a] <= int(useful[a]) * m.w[a])
    model.presence = pyo.Constraint(model.A, rule=lambda m, a: m.w[a] <= m.r[a])
    present = set(model.A)
    model.pairs = pyo.ConstraintList()
    for columns in problem.configurations_of_pair.values():
        chosen = [int(a) for a in columns if int(a) in present]
        if len(chosen) > 1:
            model.pairs.add(pyo.quicksum(model.w[a] for a in chosen) <= 1)


def _linking(model: pyo.ConcreteModel, largest: FloatArray) -> None:
    """x <= min(1, Delta/D, eps/e) w: tight, because no larger share could keep the delay and error limits alone."""
    model.linking = pyo.Constraint(model.IA, rule=lambda m, i, a: m.x[i, a] <= float(largest[i, a]) * m.w[a])


@dataclass(frozen=True, slots=True)
class Cover:
    """A row `sum of w over good + k u[query_type] >= 1`."""

    query_type: int
    good: frozenset[int]
    k: float

    def implies(self, other: "Cover") -> bool:
        """Whether every solution of this row is one of the other."""
        return self.query_type == other.query_type and self.good <= other.good and self.k <= other.k


def _cover(model: pyo.ConcreteModel, problem: PlanningProblem, by_type: dict[int, list[int]]) -> None:
    """Some good configuration is deployed, or part of the type stays unmet.

    For any weight 0 <= lambda <= 1 the delay and the error limit of type i add up to::

        sum_a v_a x_ia <= 1        with v_a = lambda D_ia/Delta_i + (1 - lambda) e_ia/eps_i

    Let `good` be the configurations with v_a <= 1 and t the smallest v_a of the others. If no good one is deployed,
    the served share 1 - u_i counts at least t each, so t (1 - u_i) <= 1 and u_i >= 1 - 1/t. Hence::

        sum_{a good} w_a + k u_i >= 1        with k = t / (t - 1), and k = 1 where all are good

    Where the cap of u_i is below 1/k, the left side without a good configuration would stay below one whatever u_i is:
    one is deployed, and k = 0 states it more sharply.
    """
    rows = [cover for i, columns in by_type.items() if columns for cover in covers_of(problem, i, columns)]
    model.cover = pyo.Constraint(
        range(len(rows)),
        rule=lambda m, n: pyo.quicksum(m.w[a] for a in sorted(rows[n].good)) + rows[n].k * m.u[rows[n].query_type] >= 1,
    )


def covers_of(problem: PlanningProblem, i: int, columns: list[int]) -> list[Cover]:
    """The cover rows of type `i` over the configurations `columns`, without those that another one implies."""
    delay, error = (
        np.divide(value, limit, out=np.zeros(len(columns)), where=value > 0)  # a limit of zero leaves values of zero
        for value, limit in (
            (problem.delay_s[i, columns], problem.delay_slo_s[i]),
            (problem.error[i, columns], problem.error_slo[i]),
        )
    )
    found: list[Cover] = []
    for weight in COVER_WEIGHTS:
        value = weight * delay + (1 - weight) * error
        bad = value > 1 + GOOD_SLACK
        t = float(value[bad].min(initial=np.inf))
        k = t / (t - 1) if np.isfinite(t) else 1.0
        good = frozenset(a for a, is_bad in zip(columns, bad, strict=True) if not is_bad)
        if good and k * (problem.unmet_cap[i] + CAP_SLACK) < 1:
            k = 0.0
        cover = Cover(i, good, k)
        if not any(other.implies(cover) for other in found):
            found = [other for other in found if not cover.implies(other)] + [cover]
    return found


def _totals(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    """Storage and budget; each limit is one."""
    gb, usd = unit_of(np.array([problem.storage_capacity_gb, problem.budget_usd]))
    model.storage = pyo.Constraint(
        expr=at_most(
            pyo.quicksum(float(problem.model_storage_gb[a] / gb) * model.w[a] for a in model.A)
            + pyo.quicksum(float(problem.token_storage_gb[i] / gb) * model.x[i, a] for i, a in model.IA),
            float(problem.storage_capacity_gb / gb),
        )
    )
    model.budget = pyo.Constraint(expr=at_most(spending(model, problem, float(usd)), float(problem.budget_usd / usd)))


def solution_arrays(built: MilpModel) -> PlanArrays:
    """Read the solution, with integers rounded."""
    problem = built.problem
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    share = np.zeros((len(problem.query_types), len(problem.configurations)))
    for a in built.model.A:
        replicas[a] = round(pyo.value(built.model.r[a]))
    for i, a in built.model.IA:
        share[i, a] = max(0.0, pyo.value(built.model.x[i, a])) if replicas[a] else 0.0
    unmet = np.array([max(0.0, pyo.value(built.model.u[i])) for i in built.model.u])
    return PlanArrays(replicas, share, unmet)


def set_values(built: MilpModel, arrays: PlanArrays) -> None:
    """Give the variables the values of a plan that deploys no configuration but those of the model."""
    for a in built.model.A:
        built.model.r[a].set_value(int(arrays.replicas[a]))
        built.model.w[a].set_value(int(arrays.replicas[a] > 0))
    for i, a in built.model.IA:
        built.model.x[i, a].set_value(float(arrays.share[i, a]))
    for i in built.model.u:
        built.model.u[i].set_value(float(arrays.unmet[i]))
