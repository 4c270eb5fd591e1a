"""The plan checker, one constraint family at a time: a plan that breaks exactly that is refused, by name and amount.

The problem is small enough for every number to be had by hand. Two tiers serve one model; `CHEAP` and `FAST` are two
configurations of one (model, tier) pair, `SPARE` is on the other tier.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from policies.checking.plan import check
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.errors import InputError
from simulator.planning.paper_rows import paper_problem
from simulator.planning.plan import Deployment, Plan, PlanArrays, PlanStatus, Route, build_plan
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType

CHAT = QueryType(
    name="chat",
    arrival_per_h=3600.0,
    input_tokens=100.0,
    output_tokens=50.0,
    delay_slo_s=3.0,
    error_slo=0.1,
    delay_penalty_usd_per_query_s=0.01,
    unmet_penalty_usd_per_query=0.1,
    unmet_cap=0.2,
    token_storage_gb_per_token=1e-5,
)
CODE = QueryType(
    name="code",
    arrival_per_h=1800.0,
    input_tokens=200.0,
    output_tokens=20.0,
    delay_slo_s=2.5,
    error_slo=0.2,
    unmet_cap=0.0,
)
MODEL = ModelSize(name="m", parameters_b=10.0, weights_gb=10.0, kv_mb_per_token=1.0)
TIER = TierSize(
    name="g",
    memory_gb=20.0,
    compute_tflops=10.0,
    compute_efficiency=0.5,
    bandwidth_gb_s=500.0,
    price_usd_per_gpu_h=1.0,
    weight_factor=1.0,
)
SPARE_TIER = replace(TIER, name="s", price_usd_per_gpu_h=0.5, weight_factor=0.5)
CHEAP = Configuration(model="m", tier="g", tensor_parallel=1, pipeline_parallel=1)
FAST = replace(CHEAP, tensor_parallel=2)
SPARE = replace(CHEAP, tier="s")

DELAY_S = np.array([[4.0, 2.0, 3.0], [2.0, 1.0, 2.0]])  # chat and code on CHEAP, FAST, SPARE
ERROR = np.array([[0.1, 0.1, 0.15], [0.1, 0.1, 0.1]])
COMMON = {
    "name": "small",
    "period_h": 2.0,
    "budget_usd": 6.0,
    "storage_price_usd_per_gb_h": 0.01,
    "storage_capacity_gb": 20.0,
    "max_replicas": 2,
}


def paper(**changes):
    parts = {
        **COMMON,
        "query_types": [CHAT, CODE],
        "models": [MODEL],
        "tiers": [TIER, SPARE_TIER],
        "configurations": [CHEAP, FAST, SPARE],
        "delay_s": DELAY_S.copy(),
        "error": ERROR.copy(),
    }
    return paper_problem(**(parts | changes))


def batching(**changes):
    """The same limits and delays; one operating point, and rows that are simply stated."""
    parts = {
        **COMMON,
        "query_types": (CHAT, CODE),
        "models": (MODEL,),
        "tiers": (TIER, SPARE_TIER),
        "configurations": tuple(replace(c, tpot_target_s=0.05) for c in (CHEAP, FAST, SPARE)),
        "delay_s": DELAY_S.copy(),
        "error": ERROR.copy(),
        "load": np.array([[1.0, 0.5, 1.0], [0.4, 0.2, 0.4]]),
        "kv": np.array([[2.0, 1.0, 2.0], [0.9, 0.4, 0.9]]),
        "cap": np.full(3, 0.5),
        "allowed": np.ones((2, 3), dtype=bool),
        "capacity_rows": CapacityRows.BATCHING,
    }
    return PlanningProblem(**(parts | changes))


def roomy(make, **changes):
    """A problem whose delay, error, compute and memory limits are far off."""
    problem = make(query_types=(replace(CHAT, delay_slo_s=9.0, error_slo=0.9), CODE), **changes)
    return replace(problem, cap=np.ones(3), kv=problem.kv / 10)


PROBLEMS = {"paper": paper, "batching": batching}


@pytest.fixture(params=PROBLEMS)
def make(request):
    """Makes the problem, with changed parts where they are given."""
    return PROBLEMS[request.param]


def the_plan(problem, replicas=(2, 0, 1), chat=(0.5, 0.3), unmet=0.2, **changes):
    """Chat is split between the pairs and partly unmet, code goes to the first; the stated cost is right.

    `replicas` are those of CHEAP, FAST and SPARE, `chat` the shares of chat on the first and the second pair.
    """
    cheap, fast, spare = problem.configurations
    deployed = [
        Deployment(configuration=c, replicas=n) for c, n in zip((cheap, fast, spare), replicas, strict=True) if n
    ]
    plan = Plan(
        problem=problem.name,
        policy="by hand",
        status=PlanStatus.FEASIBLE,
        cost_usd=0.0,
        bound_usd=None,
        seconds=None,
        deployments=tuple(deployed),
        routing=(
            Route(query_type="chat", model="m", tier="g", share=chat[0]),
            Route(query_type="chat", model="m", tier="s", share=chat[1]),
            Route(query_type="code", model="m", tier="g", share=1.0),
        ),
        unmet=(("chat", unmet),) if unmet else (),
    )
    rental = 2.0 * (replicas[0] * 1.0 + replicas[1] * 2.0 + replicas[2] * 0.5)
    weights_gb = 10.0 * ((replicas[0] > 0) + (replicas[1] > 0)) + 5.0 * (replicas[2] > 0)
    tokens_gb = 1e-5 * 150 * 3600 * sum(chat)
    on_pair = problem.delay_s[0, 1 if replicas[1] else 0], problem.delay_s[0, 2]
    penalty = 2.0 * 0.01 * 3600 * (chat[0] * on_pair[0] + chat[1] * on_pair[1]) + 2.0 * 0.1 * 3600 * unmet
    cost_usd = rental + 2.0 * 0.01 * (weights_gb + tokens_gb) + penalty
    return replace(plan, cost_usd=cost_usd, **changes)


def only_violation(problem, plan):
    (violation,) = check(problem, plan).violations
    assert violation.excess == pytest.approx(abs(violation.value - violation.limit))
    return violation


def test_the_plan_is_accepted_and_its_cost_is_the_one_by_hand(make):
    problem = make()
    report = check(problem, the_plan(problem))
    assert report.violations == ()
    assert report.accepted
    assert report.cost_parts_usd == pytest.approx(
        {
            "rental": 2.0 * (2 * 1.0 + 1 * 0.5),
            "model_storage": 2.0 * 0.01 * (10.0 + 5.0),
            "token_storage": 2.0 * 0.01 * (1e-5 * 150 * 3600 * 0.8),
            "delay_penalty": 2.0 * 0.01 * 3600 * (0.5 * 4.0 + 0.3 * 3.0),
            "unmet_penalty": 2.0 * 0.1 * 3600 * 0.2,
        }
    )
    assert report.cost_usd == pytest.approx(358.1864)


# What breaks, the limit that is tightened, its subject, the value of the plan by hand, and the limit.
TIGHTENED = {
    "unmet share": ({"query_types": (replace(CHAT, unmet_cap=0.15), CODE)}, "chat", 0.2, 0.15),
    "mean delay": ({"query_types": (replace(CHAT, delay_slo_s=2.8), CODE)}, "chat", 0.5 * 4.0 + 0.3 * 3.0, 2.8),
    "mean error": ({"query_types": (replace(CHAT, error_slo=0.09), CODE)}, "chat", 0.5 * 0.1 + 0.3 * 0.15, 0.09),
    "storage": ({"storage_capacity_gb": 19.0}, "the plan", 15.0 + 4.32, 19.0),
    "budget": ({"budget_usd": 5.0}, "the plan", 5.0 + 0.02 * 19.32, 5.0),
}


@pytest.mark.parametrize("constraint", TIGHTENED)
def test_a_limit_that_the_plan_breaks(make, constraint):
    change, subject, value, limit = TIGHTENED[constraint]
    problem = make(**change)
    violation = only_violation(problem, the_plan(problem))
    assert (violation.constraint, violation.subject) == (constraint, subject)
    assert violation.value == pytest.approx(value)
    assert violation.limit == limit
    assert violation.excess == pytest.approx(value - limit)
    assert f"{constraint} of {subject}" in str(violation)


@pytest.mark.parametrize("constraint", TIGHTENED)
def test_a_limit_that_is_met_exactly(make, constraint):
    """Also by a plan that is off by what a solver leaves, but not by twice the tolerance."""
    change, _, value, limit = TIGHTENED[constraint]
    problem = make()
    (name, was), *_ = change.items()
    for factor, accepted in ((1.0, True), (1 - 5e-7, True), (1 - 2e-6, False)):
        if name == "query_types":
            field = {"unmet share": "unmet_cap", "mean delay": "delay_slo_s", "mean error": "error_slo"}[constraint]
            absolute = value - (1 - factor) if constraint == "unmet share" else value * factor
            tight = replace(problem, query_types=(replace(was[0], **{field: absolute}), CODE))
        else:
            tight = replace(problem, **{name: value * factor})
        assert check(tight, the_plan(tight)).accepted is accepted, (factor, limit)


def test_sum_of_shares(make):
    problem = roomy(make)
    for unmet, chat in ((0.0, (0.5, 0.3)), (0.2, (0.5, 0.2))):
        violation = only_violation(problem, the_plan(problem, unmet=unmet, chat=chat))
        assert (violation.constraint, violation.subject) == ("sum of shares", "chat")
        assert violation.value == pytest.approx(unmet + sum(chat))
        assert violation.limit == 1.0
    more = the_plan(problem, chat=(0.55, 0.3))
    assert only_violation(problem, more).excess == pytest.approx(0.05)


def test_a_type_that_is_left_out(make):
    problem = make()
    plan = the_plan(problem)
    violation = only_violation(problem, replace(plan, routing=plan.routing[:2]))
    assert (violation.constraint, violation.subject, violation.value) == ("sum of shares", "code", 0.0)


def test_negative_shares(make):
    problem = roomy(make)
    violation = only_violation(problem, the_plan(problem, chat=(-0.1, 0.9), unmet=0.2))
    assert (violation.constraint, violation.subject) == ("negative share", "chat on m on g")
    assert violation.excess == pytest.approx(0.1)


def test_negative_unmet_share(make):
    problem = roomy(make, storage_capacity_gb=30.0)
    violation = only_violation(problem, the_plan(problem, chat=(0.8, 0.25), unmet=-0.05))
    assert (violation.constraint, violation.subject) == ("negative unmet share", "chat")
    assert violation.excess == pytest.approx(0.05)


@pytest.mark.parametrize("chat", [(math.nan, 0.3), (0.5, math.nan)])
def test_shares_that_are_no_numbers(make, chat):
    problem = make()
    assert not check(problem, the_plan(problem, chat=chat)).accepted
    assert not check(problem, the_plan(problem, unmet=math.nan)).accepted
    assert not check(problem, replace(the_plan(problem), cost_usd=math.nan)).accepted
    assert not check(problem, replace(the_plan(problem), bound_usd=math.nan)).accepted


def test_a_route_that_is_ruled_out(make):
    allowed = np.ones((2, 3), dtype=bool)
    allowed[0, 2] = False
    problem = replace(roomy(make), allowed=allowed)
    violation = only_violation(problem, the_plan(problem))
    assert (violation.constraint, violation.subject) == ("route that is ruled out", "chat on m on s")
    assert (violation.value, violation.limit) == (0.3, 0.0)
    assert check(problem, the_plan(problem, chat=(0.8, 0.0))).accepted


def test_more_replicas_than_allowed(make):
    problem = make(max_replicas=1)
    violation = only_violation(problem, the_plan(problem))
    assert (violation.constraint, violation.value, violation.limit) == ("replicas", 2, 1)
    assert violation.subject.startswith("m on g TP1 PP1")


def test_two_configurations_of_one_pair(make):
    problem = make(budget_usd=10.0, storage_capacity_gb=30.0)
    violation = only_violation(problem, the_plan(problem, replicas=(2, 1, 1)))
    assert (violation.constraint, violation.subject) == ("configurations per model and tier", "m on g")
    assert (violation.value, violation.limit) == (2, 1)
    assert check(problem, the_plan(problem, replicas=(0, 2, 1))).accepted


def test_one_configuration_listed_twice(make):
    problem = make(storage_capacity_gb=30.0)
    plan = the_plan(problem)
    twice = (Deployment(configuration=problem.configurations[0], replicas=2), plan.deployments[0], plan.deployments[1])
    names = [violation.constraint for violation in check(problem, replace(plan, deployments=twice)).violations]
    assert "configurations per model and tier" in names


def test_replicas_are_whole(make):
    problem = roomy(make)
    violation = only_violation(problem, the_plan(problem, replicas=(1.5, 0, 1)))
    assert (violation.constraint, violation.value) == ("whole replicas", 1.5)


@pytest.mark.parametrize("replicas", [(-1, 0, 1), (2, 0, -1)])
def test_replicas_are_not_negative(make, replicas):
    problem = make()
    assert not check(problem, the_plan(problem, replicas=replicas)).accepted


def test_a_wrong_stated_cost(make):
    problem = make()
    plan = the_plan(problem)
    for stated in (plan.cost_usd + 0.5, plan.cost_usd - 0.5):
        violation = only_violation(problem, replace(plan, cost_usd=stated))
        assert (violation.constraint, violation.unit) == ("stated cost", "USD")
        assert violation.value == stated
        assert violation.limit == pytest.approx(plan.cost_usd)
    assert check(problem, replace(plan, cost_usd=plan.cost_usd * (1 + 5e-7))).accepted


def test_a_bound_above_the_cost(make):
    problem = make()
    plan = the_plan(problem)
    assert check(problem, replace(plan, bound_usd=plan.cost_usd)).accepted
    violation = only_violation(problem, replace(plan, bound_usd=plan.cost_usd + 1.0))
    assert violation.constraint == "stated bound"
    assert violation.excess == pytest.approx(1.0)


def test_routes_of_one_type_to_one_pair_add_up(make):
    problem = make()
    plan = the_plan(problem)
    first, *rest = plan.routing
    halves = (replace(first, share=0.25), replace(first, share=0.25))
    assert check(problem, replace(plan, routing=(*halves, *rest))).accepted
    assert check(problem, replace(plan, unmet=(("chat", 0.15), ("chat", 0.05)))).accepted


def test_the_noise_of_a_solver_is_no_part_of_a_plan(make):
    """Dust is left out, and shares sum to one to the last bit that matters."""
    problem = make()
    share = np.array([[0.5 + 3e-8, -1e-12, 0.3], [1.0 - 4e-8, 0.0, 1e-10]])
    arrays = PlanArrays(np.array([2, 0, 1]), share, np.array([0.2, -1e-13]))
    plan = build_plan(problem, arrays, policy="solver", status=PlanStatus.OPTIMAL, seconds=0.0)
    assert check(problem, plan).accepted
    assert [(route.query_type, route.tier) for route in plan.routing] == [("chat", "g"), ("chat", "s"), ("code", "g")]
    assert [name for name, _ in plan.unmet] == ["chat"]
    assert sum(route.share for route in plan.routing) + plan.unmet[0][1] == pytest.approx(2.0, abs=1e-15)
    assert [deployment.replicas for deployment in plan.deployments] == [2, 1]


class TestPaperRows:
    """Memory and compute are recomputed in GB and TFLOP/s from models and tiers, whatever `load` and `kv` say."""

    def test_kv_memory(self):
        """50 MB a token: (75 tokens/s x 4 s + 110 x 2 s) x 0.05 GB = 26 GB; two replicas leave 2 x (20 - 10) GB."""
        problem = paper(models=[replace(MODEL, kv_mb_per_token=50.0)])
        violation = only_violation(problem, the_plan(problem))
        assert (violation.constraint, violation.subject, violation.unit) == ("KV memory", "m on g TP1 PP1", "GB")
        assert (violation.value, violation.limit) == (pytest.approx(26.0), pytest.approx(20.0))
        assert violation.excess == pytest.approx(6.0)
        assert check(paper(models=[replace(MODEL, kv_mb_per_token=38.0)]), the_plan(problem)).accepted

    def test_compute(self):
        """185 tokens/s x 0.02 TFLOP = 3.7; two replicas give 2 x 0.5 x 3.6."""
        problem = paper(tiers=[replace(TIER, compute_tflops=3.6), SPARE_TIER])
        violation = only_violation(problem, the_plan(problem))
        assert (violation.constraint, violation.subject) == ("compute", "m on g TP1 PP1")
        assert (violation.value, violation.limit) == (pytest.approx(3.7), pytest.approx(3.6))
        assert check(paper(tiers=[replace(TIER, compute_tflops=3.7), SPARE_TIER]), the_plan(problem)).accepted

    def test_weights_that_do_not_fit(self):
        problem = paper(models=[replace(MODEL, weights_gb=21.0)], storage_capacity_gb=100.0, budget_usd=10.0)
        constraints = {violation.constraint for violation in check(problem, the_plan(problem)).violations}
        assert {"KV memory", "route that is ruled out"} <= constraints

    @pytest.mark.parametrize("rows", ["load", "kv"])
    def test_the_stated_rows_are_not_believed(self, rows):
        problem = paper()
        assert check(replace(problem, **{rows: np.full((2, 3), 1e9)}), the_plan(problem)).accepted
        tight = paper(
            models=[replace(MODEL, kv_mb_per_token=50.0)], tiers=[replace(TIER, compute_tflops=3.6), SPARE_TIER]
        )
        report = check(replace(tight, load=np.zeros((2, 3)), kv=np.zeros((2, 3))), the_plan(tight))
        assert {violation.constraint for violation in report.violations} == {"KV memory", "compute"}

    def test_headroom(self):
        """3.7 of 10 TFLOP/s is too much where a third may be used."""
        problem = replace(paper(), cap=np.full(3, 1 / 3))
        violation = only_violation(problem, the_plan(problem))
        assert (violation.constraint, violation.subject) == ("compute", "m on g TP1 PP1")


class TestBatchingRows:
    def test_load(self):
        """0.5 x 1.0 + 0.4 on two replicas of which 0.44 may be used."""
        problem = batching(cap=np.array([0.44, 0.5, 0.5]))
        violation = only_violation(problem, the_plan(problem))
        assert (violation.constraint, violation.subject) == ("load", "m on g TP1 PP1 at 50 ms/token")
        assert (violation.value, violation.limit) == (pytest.approx(0.9), pytest.approx(0.88))
        assert check(replace(problem, cap=np.array([0.45, 0.5, 0.5])), the_plan(problem)).accepted

    def test_kv_cache(self):
        """0.5 x 2.0 + 1.1 on two replicas."""
        problem = batching(kv=np.array([[2.0, 1.0, 2.0], [1.1, 0.4, 0.9]]))
        violation = only_violation(problem, the_plan(problem))
        assert (violation.constraint, violation.subject) == ("KV cache", "m on g TP1 PP1 at 50 ms/token")
        assert (violation.value, violation.limit) == (pytest.approx(2.1), 2)
        assert check(replace(problem, kv=np.array([[2.0, 1.0, 2.0], [1.0, 0.4, 0.9]])), the_plan(problem)).accepted

    def test_another_operating_point_is_another_configuration(self):
        problem = batching()
        plan = the_plan(problem)
        other = replace(plan.deployments[0].configuration, tpot_target_s=0.04)
        deployments = (replace(plan.deployments[0], configuration=other), plan.deployments[1])
        with pytest.raises(InputError, match=r"deployments\[0\]: m on g TP1 PP1 at 40 ms/token is no configuration"):
            check(problem, replace(plan, deployments=deployments))


def test_unknown_names_are_refused_all_at_once(make):
    problem = make()
    plan = the_plan(problem)
    strange = replace(problem.configurations[0], tensor_parallel=3)
    wrong = replace(
        plan,
        deployments=(plan.deployments[0], replace(plan.deployments[1], configuration=strange)),
        routing=(
            plan.routing[0],
            replace(plan.routing[1], query_type="chess"),
            replace(plan.routing[2], model="n"),
        ),
        unmet=(("chess", 0.2),),
    )
    with pytest.raises(InputError) as caught:
        check(problem, wrong)
    starts = [problem.split(":")[0] for problem in caught.value.problems]
    assert starts == ["deployments[1]", "routing[1].query_type", "routing[1]", "routing[2]", "unmet[0].query_type"]
    assert "TP3" in caught.value.problems[0]
    assert "'chess'" in caught.value.problems[1]


def test_several_violations_are_all_named(make):
    problem = make(max_replicas=1, storage_capacity_gb=10.0, budget_usd=1.0)
    report = check(problem, replace(the_plan(problem), cost_usd=0.0))
    assert sorted(violation.constraint for violation in report.violations) == [
        "budget",
        "replicas",
        "stated cost",
        "storage",
    ]
    assert not report.accepted
    assert report.cost_usd == pytest.approx(358.1864)
