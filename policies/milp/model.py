"""The whole planning problem as a mixed-integer linear program in Pyomo.

Equations and symbols: section 4 of docs/design.md (arXiv 2604.07472, problem P). Shares are indexed by configuration,
which keeps the model linear; one function adds one family of constraints.
"""

from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo

from simulator.plan import PlanArrays
from simulator.problem import FloatArray, IntArray, PlanningProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class MilpModel:
    """The Pyomo model with what is needed to read its solution."""

    model: pyo.ConcreteModel
    problem: PlanningProblem
    usable: IntArray  # configurations in the model, as indices of the problem


def usable_configurations(problem: PlanningProblem) -> IntArray:
    """Configurations that can serve some type: allowed, and some share fits a replica and the limits."""
    return np.flatnonzero(problem.allowed.any(axis=0) & (problem.cap > 0)).astype(np.int64)


def build_model(problem: PlanningProblem) -> MilpModel:
    """State the problem. Names of the blocks are those of the constraint families in the design."""
    usable = usable_configurations(problem)
    model = pyo.ConcreteModel(name=problem.name)
    types = range(len(problem.query_types))
    model.A = pyo.Set(initialize=[int(a) for a in usable], ordered=True)
    model.IA = pyo.Set(initialize=[(i, int(a)) for i in types for a in usable if problem.allowed[i, a]], ordered=True)
    model.w = pyo.Var(model.A, domain=pyo.Binary)
    model.r = pyo.Var(model.A, domain=pyo.NonNegativeIntegers, bounds=(0, problem.max_replicas))
    model.x = pyo.Var(model.IA, bounds=(0.0, 1.0))
    model.u = pyo.Var(types, bounds=lambda _, i: (0.0, float(problem.unmet_cap[i])))
    by_type: dict[int, list[int]] = {i: [] for i in types}
    by_configuration: dict[int, list[int]] = {int(a): [] for a in usable}
    for i, a in model.IA:
        by_type[i].append(a)
        by_configuration[a].append(i)
    _objective(model, problem)
    _demand(model, by_type)
    _limits(model, problem, by_type)
    _capacity(model, problem, by_configuration)
    _deployment(model, problem)
    _linking(model, problem)
    _totals(model, problem)
    return MilpModel(model=model, problem=problem, usable=usable)


def _objective(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    serving = problem.delay_penalty_usd + problem.token_storage_usd[:, None]
    model.cost = pyo.Objective(
        expr=pyo.quicksum(float(problem.rent_usd[a]) * model.r[a] for a in model.A)
        + pyo.quicksum(float(problem.model_storage_usd[a]) * model.w[a] for a in model.A)
        + pyo.quicksum(float(serving[i, a]) * model.x[i, a] for i, a in model.IA)
        + pyo.quicksum(float(problem.unmet_usd[i]) * model.u[i] for i in model.u)
    )


def _demand(model: pyo.ConcreteModel, by_type: dict[int, list[int]]) -> None:
    model.demand = pyo.Constraint(
        list(by_type), rule=lambda m, i: pyo.quicksum(m.x[i, a] for a in by_type[i]) + m.u[i] == 1
    )


def _limits(model: pyo.ConcreteModel, problem: PlanningProblem, by_type: dict[int, list[int]]) -> None:
    """Mean delay and error of each type, summed over the served shares."""
    served = [i for i, columns in by_type.items() if columns]
    model.delay = pyo.Constraint(
        served,
        rule=lambda m, i: (
            pyo.quicksum(float(problem.delay_s[i, a]) * m.x[i, a] for a in by_type[i]) <= float(problem.delay_slo_s[i])
        ),
    )
    model.error = pyo.Constraint(
        served,
        rule=lambda m, i: (
            pyo.quicksum(float(problem.error[i, a]) * m.x[i, a] for a in by_type[i]) <= float(problem.error_slo[i])
        ),
    )


def _capacity(model: pyo.ConcreteModel, problem: PlanningProblem, by_configuration: dict[int, list[int]]) -> None:
    model.compute = pyo.Constraint(
        model.A,
        rule=lambda m, a: (
            pyo.quicksum(float(problem.load[i, a]) * m.x[i, a] for i in by_configuration[a])
            <= float(problem.cap[a]) * m.r[a]
        ),
    )
    model.memory = pyo.Constraint(
        model.A,
        rule=lambda m, a: pyo.quicksum(float(problem.kv[i, a]) * m.x[i, a] for i in by_configuration[a]) <= m.r[a],
    )


def _deployment(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    """Deployed means some replicas, not deployed none; at most one configuration per (model, tier)."""
    model.replicas = pyo.Constraint(model.A, rule=lambda m, a: m.r[a] <= problem.max_replicas * m.w[a])
    model.presence = pyo.Constraint(model.A, rule=lambda m, a: m.w[a] <= m.r[a])
    present = set(model.A)
    model.pairs = pyo.ConstraintList()
    for columns in problem.configurations_of_pair.values():
        chosen = [int(a) for a in columns if int(a) in present]
        if len(chosen) > 1:
            model.pairs.add(pyo.quicksum(model.w[a] for a in chosen) <= 1)


def _linking(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    """x <= min(1, Delta/D, eps/e) w: tight, because no larger share could keep the delay and error limits alone."""
    largest = np.minimum(
        _share_within(problem.delay_slo_s, problem.delay_s), _share_within(problem.error_slo, problem.error)
    )
    model.linking = pyo.Constraint(model.IA, rule=lambda m, i, a: m.x[i, a] <= float(largest[i, a]) * m.w[a])


def _share_within(limit: FloatArray, value: FloatArray) -> FloatArray:
    """Shape (types, configurations): largest share, at most 1, that keeps the limit (types,) by itself."""
    per_pair = np.broadcast_to(limit[:, None], value.shape)
    return np.minimum(1.0, np.divide(per_pair, value, out=np.ones(value.shape), where=value > per_pair))


def _totals(model: pyo.ConcreteModel, problem: PlanningProblem) -> None:
    served = [pyo.quicksum([]) for _ in problem.query_types]
    for i, a in model.IA:
        served[i] += model.x[i, a]
    model.storage = pyo.Constraint(
        expr=pyo.quicksum(float(problem.model_storage_gb[a]) * model.w[a] for a in model.A)
        + pyo.quicksum(float(gb) * share for gb, share in zip(problem.token_storage_gb, served, strict=True))
        <= problem.storage_capacity_gb
    )
    model.budget = pyo.Constraint(
        expr=pyo.quicksum(float(problem.rent_usd[a]) * model.r[a] for a in model.A)
        + pyo.quicksum(float(problem.model_storage_usd[a]) * model.w[a] for a in model.A)
        + pyo.quicksum(float(usd) * share for usd, share in zip(problem.token_storage_usd, served, strict=True))
        <= problem.budget_usd
    )


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
