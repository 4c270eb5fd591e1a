"""Each family of constraints of the MILP by itself: its rows to the digit, and what must hold of it.

Two types, one model, two tiers: tier `s` on one GPU (configuration 0) or two (1), tier `t`, of half the weights, on one
(2). The text is what HiGHS reads back from the LP file in which only that family is left, so it does not depend on how
Pyomo formats it. Every coefficient can be had by hand from the numbers in `tiny`, most of them from the comments there.
"""

from dataclasses import replace

import highspy
import numpy as np
import pyomo.environ as pyo
import pytest
from hypothesis import Phase, given, settings

from policies.milp.model import build_model, covers_of, usable_configurations
from simulator.catalog.configuration import Configuration, ModelSize
from simulator.planning.paper_rows import paper_problem
from tests.golden.test_milp_model import CHAT, CODE, TIER, as_text
from tests.property.test_planners_exhaustive import problems

FAMILIES = {
    "demand": """
demand(0): 1 x(0_0) + 1 x(0_1) + 1 x(0_2) + 1 u(0) = 1
demand(1): 1 x(1_0) + 1 x(1_1) + 1 x(1_2) + 1 u(1) = 1
""",
    "delay": """
delay(0): 1.25 x(0_0) + 0.625 x(0_1) + 0.5 x(0_2) <= 1
delay(1): 1.2 x(1_0) + 0.8 x(1_1) + 0.4 x(1_2) <= 1
""",
    "error": """
error(0): 0.4 x(0_0) + 0.4 x(0_1) + 1.1 x(0_2) <= 1
error(1): 0.8 x(1_0) + 0.8 x(1_1) + 2 x(1_2) <= 1
""",
    "compute": """
compute(0): -1 r(0) + 4 x(0_0) + 0.2 x(1_0) <= 0
compute(1): -1 r(1) + 2 x(0_1) + 0.1 x(1_1) <= 0
compute(2): -1 r(2) + 2 x(0_2) + 0.1 x(1_2) <= 0
""",
    "memory": """
memory(0): -1 r(0) + 2.5 x(0_0) + 0.075 x(1_0) <= 0
memory(1): -1 r(1) + 0.178571 x(0_1) + 0.00714286 x(1_1) <= 0
memory(2): -1 r(2) + 0.285714 x(0_2) + 0.00714286 x(1_2) <= 0
""",
    "replicas": """
replicas(0): 1 r(0) - 3 w(0) <= 0
replicas(1): 1 r(1) - 3 w(1) <= 0
replicas(2): 1 r(2) - 2 w(2) <= 0
""",
    "presence": """
presence(0): -1 r(0) + 1 w(0) <= 0
presence(1): -1 r(1) + 1 w(1) <= 0
presence(2): -1 r(2) + 1 w(2) <= 0
""",
    "pairs": """
pairs(1): 1 w(0) + 1 w(1) <= 1
""",
    "linking": """
linking(0_0): -0.8 w(0) + 1 x(0_0) <= 0
linking(0_1): -1 w(1) + 1 x(0_1) <= 0
linking(0_2): -0.909091 w(2) + 1 x(0_2) <= 0
linking(1_0): -0.833333 w(0) + 1 x(1_0) <= 0
linking(1_1): -1 w(1) + 1 x(1_1) <= 0
linking(1_2): -0.5 w(2) + 1 x(1_2) <= 0
""",
    "cover": """
cover(0): 1 w(0) + 1 w(1) + 11 u(0) >= 1
cover(1): 1 w(0) + 1 w(1) + 1 w(2) + 1 u(0) >= 1
cover(2): 1 w(1) + 1 w(2) + 5 u(0) >= 1
cover(3): 1 w(0) + 1 w(1) >= 1
cover(4): 1 w(1) + 1 w(2) >= 1
""",
    "storage": """
storage: 0.571429 w(0) + 0.571429 w(1) + 0.285714 w(2) + 0.205714 x(0_0) + 0.205714 x(0_1) + 0.205714 x(0_2) <= 1
""",
    "budget": """
budget: 0.0666667 r(0) + 0.133333 r(1) + 0.166667 r(2) + 0.0133333 w(0) + 0.0133333 w(1) \
+ 0.00666667 w(2) + 0.0048 x(0_0) + 0.0048 x(0_1) + 0.0048 x(0_2) <= 1
""",
}
OBJECTIVE = """
min
8 r(0) + 16 r(1) + 20 r(2) + 1.6 w(0) + 1.6 w(1) + 0.8 w(2) \
+ 144.576 x(0_0) + 72.576 x(0_1) + 58.176 x(0_2) + 4.32 x(1_0) + 2.88 x(1_1) + 1.44 x(1_2) + 2880 u(0) + 144 u(1)
integer 0 <= r(0) <= 3
integer 0 <= r(1) <= 3
integer 0 <= r(2) <= 2
integer 0 <= w(0) <= 1
integer 0 <= w(1) <= 1
integer 0 <= w(2) <= 1
0 <= x(0_0) <= 1
0 <= x(0_1) <= 1
0 <= x(0_2) <= 1
0 <= x(1_0) <= 1
0 <= x(1_1) <= 1
0 <= x(1_2) <= 1
0 <= u(0) <= 1
0 <= u(1) <= 0
"""


def tiny():
    """20 GFLOP and 1 MB of KV cache a token, 20 GB of weights; 10 queries/s of 200 tokens and 0.5 of them.

    Loads: chat 40 TFLOP/s and code 2, on replicas of 10 (one GPU of `s`), 20 (two) and 20 (`t`). KV cache by Little's
    law: tokens in flight over what the weights leave of 24, 48 and 24 GB.
    """
    return paper_problem(
        name="tiny",
        period_h=2.0,
        budget_usd=30.0,
        storage_price_usd_per_gb_h=0.01,
        storage_capacity_gb=35.0,
        max_replicas=3,
        query_types=[replace(CHAT, arrival_per_h=36000.0, unmet_cap=1.0), CODE],
        models=[ModelSize(name="m", parameters_b=10.0, weights_gb=20.0, kv_mb_per_token=1.0)],
        tiers=[TIER, replace(TIER, name="t", compute_tflops=40.0, price_usd_per_gpu_h=2.5, weight_factor=0.5)],
        configurations=[
            Configuration(model="m", tier=tier, tensor_parallel=n, pipeline_parallel=1)
            for tier, n in (("s", 1), ("s", 2), ("t", 1))
        ],
        delay_s=np.array([[5.0, 2.5, 2.0], [3.0, 2.0, 1.0]]),
        error=np.array([[0.04, 0.04, 0.11], [0.04, 0.04, 0.1]]),
    )


def reader(model, path):
    """HiGHS with the LP file that Pyomo writes of the model."""
    model.write(str(path), io_options={"symbolic_solver_labels": True})
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    assert highs.readModel(str(path)) == highspy.HighsStatus.kOk
    return highs


def rows_of(highs):
    return [line for line in as_text(highs).splitlines() if ": " in line]


def optimum_usd(model, path):
    highs = reader(model, path)
    highs.setOptionValue("mip_rel_gap", 0.0)
    highs.run()
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return highs.getInfo().objective_function_value * tiny().money_unit_usd


def families(model):
    return {block.local_name: block for block in model.component_objects(pyo.Constraint)}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_a_family(family, tmp_path):
    model = build_model(tiny()).model
    for name, block in families(model).items():
        if name != family:
            block.deactivate()
    assert rows_of(reader(model, tmp_path / "model.lp")) == FAMILIES[family].strip().splitlines()


def test_the_objective_and_the_columns(tmp_path):
    lines = as_text(reader(build_model(tiny()).model, tmp_path / "model.lp")).splitlines()
    assert [line for line in lines if ": " not in line] == OBJECTIVE.strip().splitlines()


def test_these_are_all_families():
    assert set(families(build_model(tiny()).model)) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_only_takes_plans_away(family, tmp_path):
    """And those that say nothing about whole plans, but cut off fractional ones, change no optimum."""
    with_it, without = build_model(tiny()).model, build_model(tiny()).model
    families(without)[family].deactivate()
    full_usd, relaxed_usd = (optimum_usd(model, tmp_path / "model.lp") for model in (with_it, without))
    # By hand: everything on three replicas of two GPUs (load 2.1), 3 x 4 + 0.4 + 18.144 + 0.72 USD.
    assert full_usd == pytest.approx(31.264)
    assert relaxed_usd <= full_usd + 1e-6
    if family in ("presence", "linking", "cover"):
        assert relaxed_usd == pytest.approx(full_usd)
    if family in ("demand", "compute", "storage"):
        assert relaxed_usd < full_usd - 0.5


def test_linking_and_cover_rows_lift_the_relaxation(tmp_path):
    def relaxed_usd(*left_out):
        model = build_model(tiny()).model
        for name in left_out:
            families(model)[name].deactivate()
        pyo.TransformationFactory("core.relax_integer_vars").apply_to(model)
        return optimum_usd(model, tmp_path / "model.lp")

    bounds = [relaxed_usd("linking", "cover"), relaxed_usd("cover"), relaxed_usd()]
    assert bounds[0] < bounds[1] - 1e-3 < bounds[2] - 2e-3
    assert bounds[2] <= 31.264


def test_cover_rows_by_hand():
    """chat at lambda = 1: values 1.25, 0.625, 0.5, so t = 1.25 and k = 5; at lambda = 0: 0.4, 0.4, 1.1 and k = 11.

    At 0.75, 1.0375 of the first gives k = 27.7 over the good ones of k = 5, which says less; in between all are good.
    Of `code` nothing may stay unmet, so its k are 0: over {1, 2} for the delay and {0, 1} for the error.
    """
    rows = [(cover.query_type, sorted(cover.good), round(cover.k, 6)) for cover in covers(tiny())]
    assert rows == [(0, [0, 1], 11.0), (0, [0, 1, 2], 1.0), (0, [1, 2], 5.0), (1, [0, 1], 0.0), (1, [1, 2], 0.0)]


def covers(problem):
    return [
        cover
        for i in range(len(problem.query_types))
        for cover in covers_of(problem, i, np.flatnonzero(problem.allowed[i]).tolist())
    ]


def test_a_configuration_that_is_hardly_too_slow_counts_as_good():
    """Its k would be a million, and the row would say nothing."""
    delay_s = np.array([[4.000004, 2.5, 2.0], [3.0, 2.0, 1.0]])
    problem = replace(tiny(), delay_s=delay_s)
    assert [cover for cover in covers(problem) if cover.query_type == 0 and cover.good == {1, 2}] == []
    assert max(cover.k for cover in covers(problem)) <= 1001


def test_a_limit_of_zero_leaves_what_is_exact(tmp_path):
    problem = replace(
        tiny(),
        query_types=(replace(CHAT, error_slo=0.0, unmet_cap=1.0),),
        **{name: getattr(tiny(), name)[:1].copy() for name in ("delay_s", "load", "kv", "allowed")},
        error=np.array([[0.1, 0.0, 0.0]]),
    )
    model = build_model(problem).model
    assert {a for _, a in model.IA} <= {1, 2}
    assert all(np.isfinite(cover.k) for cover in covers_of(problem, 0, [1, 2]))


@settings(max_examples=25, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(problem=problems())
def test_cover_linking_and_presence_rows_cut_off_no_optimum(tmp_path_factory, problem):
    """Whatever the problem: the same optimum, or the same infeasibility, without them."""
    if not len(usable_configurations(problem)):
        return

    def solved(*left_out):
        model = build_model(problem).model
        for name in left_out:
            families(model)[name].deactivate()
        highs = reader(model, tmp_path_factory.mktemp("lp") / "model.lp")
        highs.run()
        optimal = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return highs.getInfo().objective_function_value if optimal else None

    full_usd = solved()
    for left_out in (["cover"], ["presence"], ["cover", "linking"]):
        assert solved(*left_out) == (None if full_usd is None else pytest.approx(full_usd, rel=1e-5, abs=1e-6))
