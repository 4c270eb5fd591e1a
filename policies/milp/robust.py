"""The whole robust program in Pyomo: one fleet, and in every scenario a routing of its own over it.

    minimise    measure_s(cost_s)                        cost_s = rent and weights of (r, w) + routing of (x^s, u^s)
    subject to  the rows of replicas and pairs on (r, w)
                demand, delay, error, compute, KV memory, linking, storage and budget on (r, w, x^s, u^s), for every s
                sum_i unmet_usd_i u^nominal_i <= what the policy inside leaves unmet at nominal

The measure is the mean, or the conditional value at risk by the rows of Rockafellar and Uryasev (2000)::

    eta + sum_s p_s y_s / (1 - tail),    y_s >= cost_s - eta,    y_s >= 0

Where a scenario is a budget of bad cases, its delay and error rows are those of Bertsimas and Sim (policies/limits.py).
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import pyomo.environ as pyo

from policies.milp.model import fleet_usd, routing_usd, state_fleet, state_routing, usable_configurations
from policies.milp.policy import HAND_OVER_PER_BUILD, STATING_S_PER_SHARE, Progress, solve
from policies.robust.objective import Objective
from policies.robust.scenarios import Scenario, widest
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

MOST_SHARES = 4000  # variables of a program that is solved when nobody limits the time: seconds, up to a minute
MAX_NODES = 20000  # then, unless the stopping rule says fewer
CONSISTENT = 1e-6  # relative, of a value that HiGHS states and its solution has
NOTHING = 1e-7  # relative to all penalties: HiGHS keeps rows to some 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustOptimum:
    """What the solver found: a fleet, shape (configurations,), its measure, and a bound on that of every fleet."""

    replicas: IntArray | None
    value_usd: float | None
    bound_usd: float | None


def optimum(objective: Objective, stop: StoppingRule, seed: int) -> IntArray | None:
    """The best fleet, or the best that was found; None if there was no time, or none was found."""
    usable = usable_configurations(widest(objective.problem, objective.scenarios))
    shares = len(objective.scenarios) * len(objective.problem.query_types) * len(usable)
    if not shares:
        return None  # nothing can be deployed
    if stop.time_limit_s is None:
        if shares > MOST_SHARES:
            return None
        stop = replace(stop, max_nodes=min(stop.max_nodes or MAX_NODES, MAX_NODES))
    elif HAND_OVER_PER_BUILD * STATING_S_PER_SHARE * shares > stop.time_limit_s:
        return None
    return solved(objective, stop, seed).replicas


def solved(objective: Objective, stop: StoppingRule, seed: int) -> RobustOptimum:
    """State the program and solve it within the stopping rule.

    It is given no fleet to start from: with start values for some of its variables HiGHS 1.16 reported an optimum, and
    a bound, that its own solution contradicts (once in four small programs). A value that the solution does not have is
    not believed, nor is its bound.
    """
    progress = Progress(None, time.perf_counter())
    model, reference = build_robust_model(objective)
    found = solve(model, stop, seed, progress)
    value_usd = found.incumbent_objective
    if value_usd is None:
        return RobustOptimum(replicas=None, value_usd=None, bound_usd=found.objective_bound)
    replicas = np.zeros(len(reference.configurations), dtype=np.int64)
    for a in model.A:
        replicas[a] = round(pyo.value(model.r[a]))
    consistent = abs(pyo.value(model.cost) - value_usd) <= CONSISTENT * max(1.0, abs(value_usd))
    return RobustOptimum(
        replicas=replicas, value_usd=value_usd, bound_usd=found.objective_bound if consistent else None
    )


def build_robust_model(objective: Objective) -> tuple[pyo.ConcreteModel, PlanningProblem]:
    """The program, and the problem whose configurations it is about."""
    scenarios, problem = objective.scenarios, objective.problem
    reference = widest(problem, scenarios)
    model = pyo.ConcreteModel(name=f"robust {problem.name}")
    state_fleet(model, reference)
    model.scenario = pyo.Block(range(len(scenarios)))
    cost_usd = [_state_scenario(model.scenario[s], scenario, model) for s, scenario in enumerate(scenarios)]
    planned = model.scenario[0]
    all_usd = float(problem.unmet_usd.sum())
    model.dropped = pyo.Constraint(
        expr=pyo.quicksum(float(usd) * planned.u[i] for i, usd in enumerate(problem.unmet_usd))
        <= objective.unmet_limit_usd + NOTHING * all_usd
    )
    model.cost = pyo.Objective(
        expr=fleet_usd(model, problem) + _measure(model, cost_usd, objective.weight, objective.tail)
    )
    return model, reference


def _measure(
    model: pyo.ConcreteModel, cost_usd: list[pyo.Expression], weight: FloatArray, tail: float
) -> pyo.Expression:
    likely = [s for s in range(len(cost_usd)) if weight[s] > 0]
    if tail == 0:
        return pyo.quicksum(float(weight[s]) * cost_usd[s] for s in likely)
    model.eta = pyo.Var()
    model.y = pyo.Var(likely, domain=pyo.NonNegativeReals)
    model.beyond = pyo.Constraint(likely, rule=lambda m, s: m.y[s] >= cost_usd[s] - m.eta)
    return model.eta + pyo.quicksum(float(weight[s]) * model.y[s] for s in likely) / (1 - tail)


def _state_scenario(block: pyo.Block, scenario: Scenario, model: pyo.ConcreteModel) -> pyo.Expression:
    """A routing in a scenario; returns what it costs, without the fleet."""
    problem, protection = scenario.problem, scenario.protection
    state_routing(block, problem, model)
    cost_usd = routing_usd(block, problem)
    if protection is None:
        return cost_usd
    of_type: dict[int, list[int]] = {i: [] for i in block.u}
    for i, a in block.IA:
        of_type[i].append(a)
    more = protection.factor - 1
    for name, use, limit, price_usd in (
        ("delay", problem.delay_s, problem.delay_slo_s, problem.delay_usd_per_s),
        ("error", problem.error, problem.error_slo, np.zeros(len(of_type))),
    ):
        worst = pyo.Block()
        block.add_component(f"worst_{name}", worst)
        worst.z = pyo.Var(list(of_type), domain=pyo.NonNegativeReals)
        worst.p = pyo.Var(block.IA, domain=pyo.NonNegativeReals)
        added = [
            protection.gamma * worst.z[i] + pyo.quicksum(worst.p[i, a] for a in columns)
            for i, columns in of_type.items()
        ]
        worst.limit = pyo.ConstraintList()
        worst.each = pyo.ConstraintList()
        for i, columns in of_type.items():
            served = pyo.quicksum(float(use[i, a]) * block.x[i, a] for a in columns)
            worst.limit.add(served + added[i] <= float(limit[i]))
            for a in columns:
                worst.each.add(worst.z[i] + worst.p[i, a] >= float(more[i] * use[i, a]) * block.x[i, a])
        cost_usd += pyo.quicksum(float(price_usd[i]) * added[i] for i in of_type)
    return cost_usd
