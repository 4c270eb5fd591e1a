"""The MILP of two types and two configurations, row by row, and what must hold of any such model.

The golden text is what HiGHS reads back from the LP file that Pyomo writes, so it depends on neither's formatting.
Every coefficient in it can be had by hand from the numbers below: the rows of limits are divided by them, and the
objective counts in a percent of what a plan costs, rounded to a power of two (1/32 USD of some 4).
"""

from dataclasses import replace

import highspy
import numpy as np
import pyomo.environ as pyo
import pytest

from policies.heuristics.dominance import undominated
from policies.heuristics.routing import route
from policies.milp.model import build_model, covers_of, set_values
from policies.registry import make_policy
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.files import read_problem
from simulator.planning.paper_rows import paper_problem
from simulator.planning.plan import plan_arrays, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import QueryType

CHAT = QueryType(
    name="chat",
    arrival_per_h=3600.0,
    input_tokens=100.0,
    output_tokens=100.0,
    delay_slo_s=4.0,
    error_slo=0.1,
    delay_penalty_usd_per_query_s=1e-4,
    unmet_penalty_usd_per_query=0.01,
    unmet_cap=0.5,
    token_storage_gb_per_token=1e-6,
)
CODE = replace(
    CHAT,
    name="code",
    arrival_per_h=1800.0,
    delay_slo_s=2.5,
    error_slo=0.05,
    unmet_cap=0.0,
    token_storage_gb_per_token=0.0,
)
TIER = TierSize(
    name="s",
    memory_gb=24.0,
    compute_tflops=20.0,
    compute_efficiency=0.5,
    bandwidth_gb_s=500.0,
    price_usd_per_gpu_h=1.0,
    weight_factor=1.0,
)

GOLDEN = """
min
64 r(0) + 128 r(1) + 12.8 w(0) + 12.8 w(1) + 115.661 x(0_0) + 46.5408 x(0_1) \
+ 34.56 x(1_0) + 23.04 x(1_1) + 2304 u(0) + 1152 u(1)
budget: 0.1 r(0) + 0.2 r(1) + 0.02 w(0) + 0.02 w(1) + 0.00072 x(0_0) + 0.00072 x(0_1) <= 1
compute(0): -1 r(0) + 0.4 x(0_0) + 0.2 x(1_0) <= 0
compute(1): -1 r(1) + 0.2 x(0_1) + 0.1 x(1_1) <= 0
cover(0): 1 w(0) + 1 w(1) >= 1
cover(1): 1 w(1) + 5 u(0) >= 1
cover(2): 1 w(1) >= 1
delay(0): 1.25 x(0_0) + 0.5 x(0_1) <= 1
delay(1): 1.2 x(1_0) + 0.8 x(1_1) <= 1
demand(0): 1 x(0_0) + 1 x(0_1) + 1 u(0) = 1
demand(1): 1 x(1_0) + 1 x(1_1) + 1 u(1) = 1
error(0): 0.8 x(0_0) + 0.8 x(0_1) <= 1
error(1): 2 x(1_0) + 1 x(1_1) <= 1
linking(0_0): -0.8 w(0) + 1 x(0_0) <= 0
linking(0_1): -1 w(1) + 1 x(0_1) <= 0
linking(1_0): -0.5 w(0) + 1 x(1_0) <= 0
linking(1_1): -1 w(1) + 1 x(1_1) <= 0
memory(0): -1 r(0) + 0.25 x(0_0) + 0.075 x(1_0) <= 0
memory(1): -1 r(1) + 0.0142857 x(0_1) + 0.00714286 x(1_1) <= 0
pairs(1): 1 w(0) + 1 w(1) <= 1
presence(0): -1 r(0) + 1 w(0) <= 0
presence(1): -1 r(1) + 1 w(1) <= 0
replicas(0): 1 r(0) - 1 w(0) <= 0
replicas(1): 1 r(1) - 1 w(1) <= 0
storage: 0.4 w(0) + 0.4 w(1) + 0.0144 x(0_0) + 0.0144 x(0_1) <= 1
integer 0 <= r(0) <= 1
integer 0 <= r(1) <= 1
integer 0 <= w(0) <= 1
integer 0 <= w(1) <= 1
0 <= x(0_0) <= 1
0 <= x(0_1) <= 1
0 <= x(1_0) <= 1
0 <= x(1_1) <= 1
0 <= u(0) <= 0.5
0 <= u(1) <= 0
"""


def two_by_two():
    """One model on one tier, on one GPU and on two: 20 GFLOP a token, 20 GB of weights, 1 MB of KV cache a token."""
    configurations = [Configuration(model="m", tier="s", tensor_parallel=n, pipeline_parallel=1) for n in (1, 2)]
    return paper_problem(
        name="two",
        period_h=2.0,
        budget_usd=20.0,
        storage_price_usd_per_gb_h=0.01,
        storage_capacity_gb=50.0,
        max_replicas=3,
        query_types=[CHAT, CODE],
        models=[ModelSize(name="m", parameters_b=10.0, weights_gb=20.0, kv_mb_per_token=1.0)],
        tiers=[TIER],
        configurations=configurations,
        delay_s=np.array([[5.0, 2.0], [3.0, 2.0]]),
        error=np.array([[0.08, 0.08], [0.1, 0.05]]),
    )


@pytest.fixture
def solver(tmp_path):
    """HiGHS with the LP file that Pyomo writes of the model."""
    path = str(tmp_path / "model.lp")
    build_model(two_by_two()).model.write(path, io_options={"symbolic_solver_labels": True})
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    assert highs.readModel(path) == highspy.HighsStatus.kOk
    return highs


def as_text(highs):
    """Objective, rows by name and columns; Pyomo's prefixes of row names (`c_e_`, `c_l_`, `c_u_`) are left out."""
    lp = highs.getLp()
    names = lp.col_names_

    def terms(values):
        shown = " + ".join(f"{value:.6g} {names[column]}" for column, value in values if value)
        return shown.replace("+ -", "- ")

    entries = {row: [] for row in range(lp.num_row_)}
    matrix = lp.a_matrix_
    for column in range(lp.num_col_):
        for k in range(matrix.start_[column], matrix.start_[column + 1]):
            entries[matrix.index_[k]].append((column, matrix.value_[k]))
    rows = []
    for row, name in enumerate(lp.row_names_):
        low, high = lp.row_lower_[row], lp.row_upper_[row]
        assert low == high or low == -highspy.kHighsInf or high == highspy.kHighsInf
        relation = "=" if low == high else "<=" if low == -highspy.kHighsInf else ">="
        label = name.removeprefix("c_e_").removeprefix("c_u_").removeprefix("c_l_").removesuffix("_")
        rows.append(f"{label}: {terms(entries[row])} {relation} {low if relation == '>=' else high:.6g}")
    columns = [
        "integer " * (kind == highspy.HighsVarType.kInteger) + f"{low:g} <= {name} <= {high:g}"
        for name, kind, low, high in zip(names, lp.integrality_, lp.col_lower_, lp.col_upper_, strict=True)
    ]
    return "\n".join(["min", terms(enumerate(lp.col_cost_)), *sorted(rows), *columns])


def test_the_model_of_two_types_and_two_configurations(solver):
    assert as_text(solver) == GOLDEN.strip()


def test_its_optimum_is_the_one_by_hand(solver):
    """Half of `code` at most can go to one GPU (its error), and none may be unmet: both types go to two GPUs."""
    solver.run()
    unit_usd = two_by_two().money_unit_usd
    assert solver.getInfo().objective_function_value * unit_usd == pytest.approx(4.0 + 0.4 + 1.4544 + 0.72)
    plan = make_policy("milp").plan(two_by_two(), incumbent=None, stop=StoppingRule(), seed=0)
    assert plan.cost_usd == pytest.approx(6.5744)
    assert [(d.configuration.tensor_parallel, d.replicas) for d in plan.deployments] == [(2, 1)]


def test_sizes_follow_from_the_problem():
    """Columns w and r for each usable configuration, x for each allowed route, u for each type."""
    full = two_by_two()
    for allowed in ([[True, True], [True, True]], [[True, False], [True, True]], [[False, True], [False, True]]):
        problem = replace(full, allowed=np.array(allowed))
        model = build_model(problem).model
        usable, routes, types = int(problem.allowed.any(axis=0).sum()), int(problem.allowed.sum()), 2
        assert model.nvariables() == 2 * usable + routes + types
        served = int(problem.allowed.any(axis=1).sum())
        pairs = int(usable > 1)
        covers = sum(len(covers_of(problem, i, np.flatnonzero(row).tolist())) for i, row in enumerate(problem.allowed))
        assert model.nconstraints() == types + 2 * served + 4 * usable + pairs + routes + covers + 2


@pytest.mark.parametrize("policy", ["gh", "agh"])
def test_plans_of_the_heuristics_satisfy_every_row(data_dir, policy):
    """A row that cuts off a plan which the checker accepts would be wrong, dominated configurations aside.

    These are replaced, as the model does without them; the plan only gets cheaper by it.
    """
    problem = read_problem(data_dir / "problems" / "6x6x10-seed2.json.gz")
    plan = make_policy(policy).plan(problem, incumbent=None, stop=StoppingRule(starts=2), seed=0)
    arrays = route(problem, undominated(problem, plan_arrays(problem, plan).replicas))
    built = build_model(problem)
    model = built.model
    set_values(built, arrays)
    broken = [
        constraint.name
        for constraint in model.component_data_objects(pyo.Constraint)
        if constraint.slack() < -1e-6 * max(1.0, abs(pyo.value(constraint.upper) or 0.0))
    ]
    assert broken == []
    cost_usd = pyo.value(model.cost) * problem.money_unit_usd
    assert cost_usd == pytest.approx(sum(plan_cost_usd(problem, arrays).values()), rel=1e-9)
    assert cost_usd <= plan.cost_usd * (1 + 1e-9)
