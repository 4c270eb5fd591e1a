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

from policies.highs import unit_of
from policies.milp.model import fleet_cost, routing_cost, state_fleet, state_routing, usable_configurations
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
    unit_usd = objective.problem.money_unit_usd
    value = found.incumbent_objective
    bound_usd = None if found.objective_bound is None else found.objective_bound * unit_usd
    if value is None:
        return RobustOptimum(replicas=None, value_usd=None, bound_usd=bound_usd)
    replicas = np.zeros(len(reference.configurations), dtype=np.int64)
    for a in model.A:
        replicas[a] = round(pyo.value(model.r[a]))
    consistent = abs(pyo.value(model.cost) - value) <= CONSISTENT * max(1.0, abs(value))
    return RobustOptimum(replicas=replicas, value_usd=value * unit_usd, bound_usd=bound_usd if consistent else None)


def build_robust_model(objective: Objective) -> tuple[pyo.ConcreteModel, PlanningProblem]:
    """The program, in units of the problem's `money_unit_usd`, and the problem whose configurations it is about."""
    scenarios, problem = objective.scenarios, objective.problem
    reference = widest(problem, scenarios)
    model = pyo.ConcreteModel(name=f"robust {problem.name}")
    state_fleet(model, reference)
    model.scenario = pyo.Block(range(len(scenarios)))
    unit_usd = problem.money_unit_usd
    cost = [_state_scenario(model.scenario[s], scenario, model, unit_usd) for s, scenario in enumerate(scenarios)]
    planned = model.scenario[0]
    all_usd = float(problem.unmet_usd.sum())
    if all_usd > 0:
        model.dropped = pyo.Constraint(
            expr=pyo.quicksum(float(usd / all_usd) * planned.u[i] for i, usd in enumerate(problem.unmet_usd))
            <= objective.unmet_limit_usd / all_usd + NOTHING
        )
    model.cost = pyo.Objective(
        expr=fleet_cost(model, problem, unit_usd) + _measure(model, cost, objective.weight, objective.tail)
    )
    return model, reference


def _measure(model: pyo.ConcreteModel, cost: list[pyo.Expression], weight: FloatArray, tail: float) -> pyo.Expression:
    likely = [s for s in range(len(cost)) if weight[s] > 0]
    if tail == 0:
        return pyo.quicksum(float(weight[s]) * cost[s] for s in likely)
    model.eta = pyo.Var()
    model.y = pyo.Var(likely, domain=pyo.NonNegativeReals)
    model.beyond = pyo.Constraint(likely, rule=lambda m, s: m.y[s] >= cost[s] - m.eta)
    return model.eta + pyo.quicksum(float(weight[s]) * model.y[s] for s in likely) / (1 - tail)


def _state_scenario(block: pyo.Block, scenario: Scenario, model: pyo.ConcreteModel, unit_usd: float) -> pyo.Expression:
    """A routing in a scenario; returns what it costs, without the fleet, in units of `unit_usd`."""
    problem, protection = scenario.problem, scenario.protection
    state_routing(block, problem, model)
    cost = routing_cost(block, problem, unit_usd)
    if protection is None:
        return cost
    of_type: dict[int, list[int]] = {i: [] for i in block.u}
    for i, a in block.IA:
        of_type[i].append(a)
    more = protection.factor - 1
    for name, use, limit, price_usd in (
        ("delay", problem.delay_s, problem.delay_slo_s, problem.delay_usd_per_s),
        ("error", problem.error, problem.error_slo, np.zeros(len(of_type))),
    ):
        unit = unit_of(limit)
        use, most = use / unit[:, None], limit / unit
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
            worst.limit.add(served + added[i] <= float(most[i]))
            for a in columns:
                worst.each.add(worst.z[i] + worst.p[i, a] >= float(more[i] * use[i, a]) * block.x[i, a])
        cost += pyo.quicksum(float(price_usd[i] * unit[i] / unit_usd) * added[i] for i in of_type)
    return cost
