"""The limits that conflict: hand-made problems of which the smallest conflict is known."""

from dataclasses import replace

import numpy as np
import pytest

from policies.heuristics.conflict.feasibility import is_feasible
from policies.heuristics.conflict.limits import Limit, LimitKind, enough_replicas, limits_of
from policies.heuristics.conflict.search import smallest_conflict
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.paper_rows import paper_problem
from simulator.planning.problem import QueryType

BUDGET, STORAGE, REPLICAS = Limit(LimitKind.BUDGET), Limit(LimitKind.STORAGE), Limit(LimitKind.REPLICAS)


def unmet(name):
    return Limit(LimitKind.UNMET, name)


def delay(name):
    return Limit(LimitKind.DELAY, name)


def error(name):
    return Limit(LimitKind.ERROR, name)


def query_type(name, **changes):
    parts = {
        "name": name,
        "arrival_per_h": 3600.0,
        "input_tokens": 60.0,
        "output_tokens": 40.0,  # 100 tokens per second of 2 GFLOP: 0.2 TFLOP/s, half of a replica's 0.4
        "delay_slo_s": 10.0,
        "error_slo": 0.5,
        "unmet_cap": 0.1,
        "token_storage_gb_per_token": 0.0,
    }
    return QueryType(**(parts | changes))


def problem(types, *, delay_s=None, error_rate=None, **changes):
    """Model m on tiers `dear` (fast and exact, 2 USD/h) and `cheap` (1 USD/h): weights of 2 GB, a day of 10 h."""
    tier = TierSize(
        name="dear",
        memory_gb=20.0,
        compute_tflops=0.8,
        compute_efficiency=0.5,
        bandwidth_gb_s=500.0,
        price_usd_per_gpu_h=2.0,
        weight_factor=1.0,
    )
    parts = {
        "name": "p",
        "period_h": 10.0,
        "budget_usd": 1000.0,
        "storage_price_usd_per_gb_h": 0.0,
        "storage_capacity_gb": 100.0,
        "max_replicas": 20,
        "query_types": types,
        "models": [ModelSize(name="m", parameters_b=1.0, weights_gb=2.0, kv_mb_per_token=0.001)],
        "tiers": [tier, replace(tier, name="cheap", price_usd_per_gpu_h=1.0)],
        "configurations": [
            Configuration(model="m", tier=name, tensor_parallel=1, pipeline_parallel=1) for name in ("dear", "cheap")
        ],
        "delay_s": np.tile([1.0, 2.0], (len(types), 1)) if delay_s is None else np.array(delay_s),
        "error": np.tile([0.1, 0.2], (len(types), 1)) if error_rate is None else np.array(error_rate),
    }
    return paper_problem(**(parts | changes))


def conflict_of(bad, feasible=is_feasible, seconds=30.0):
    assert is_feasible(bad, 10.0) is False
    return smallest_conflict(bad, feasible, time_limit_s=seconds)


TWO = [query_type("chat"), query_type("code")]
CASES = {
    "budget and one type": (problem([query_type("chat")], budget_usd=5.0), {BUDGET, unmet("chat")}),
    "budget and the dear one of two types": (
        problem([query_type("chat"), query_type("code", arrival_per_h=36000.0)], budget_usd=45.0),  # 5 replicas: 50 USD
        {BUDGET, unmet("code")},
    ),
    # One replica serves both types, 1.8 of 2 halves; two more of a type each do not fit one.
    "budget and two types together": (
        problem([query_type(n, arrival_per_h=7200.0) for n in ("chat", "code")], budget_usd=15.0),
        {BUDGET, unmet("chat"), unmet("code")},
    ),
    "budget, quality and unmet cap": (
        problem([query_type("chat", error_slo=0.1, unmet_cap=0.0)], budget_usd=15.0),
        {BUDGET, unmet("chat"), error("chat")},
    ),
    "delay": (problem([query_type("chat", delay_slo_s=0.5), query_type("code")]), {delay("chat"), unmet("chat")}),
    "error": (problem([query_type("chat"), query_type("code", error_slo=0.05)]), {error("code"), unmet("code")}),
    # A half on each has a delay of 2 and an error of 0.2; every mixture adds up to 4 of 10 s times error.
    "delay and error, also in a mixture": (
        problem(
            [query_type("chat", delay_slo_s=1.5, error_slo=0.1, unmet_cap=0.0)],
            delay_s=[[1.0, 3.0]],
            error_rate=[[0.3, 0.05]],
        ),
        {delay("chat"), error("chat"), unmet("chat")},
    ),
    "storage": (problem(TWO[:1], storage_capacity_gb=1.5), {STORAGE, unmet("chat")}),
    "storage of tokens": (
        problem([query_type("chat", token_storage_gb_per_token=1e-3)], storage_capacity_gb=200.0),  # 360 GB an hour
        {STORAGE, unmet("chat")},
    ),
    "replicas": (
        problem([query_type("chat", arrival_per_h=36000.0)], max_replicas=2),  # 4.5 replicas, two on each tier
        {REPLICAS, unmet("chat")},
    ),
    "replicas and a delay that only one tier keeps": (
        problem([query_type("chat", arrival_per_h=36000.0, delay_slo_s=1.0)], max_replicas=3),
        {REPLICAS, unmet("chat"), delay("chat")},
    ),
    "no configuration": (
        problem([query_type("chat")], models=[ModelSize(name="m", parameters_b=1, weights_gb=99, kv_mb_per_token=1)]),
        {unmet("chat")},
    ),
}


@pytest.mark.parametrize(("bad", "expected"), CASES.values(), ids=CASES)
def test_the_smallest_conflict_is_found(bad, expected):
    conflict = conflict_of(bad)
    assert set(conflict.limits) == expected
    assert conflict.irreducible
    assert conflict.smallest
    assert set(conflict.enough_alone) == expected, "no other conflict in these problems"


def test_the_smallest_of_several_conflicts_is_found():
    """Budget with three types (four limits), or the delay of one type (two)."""
    types = [query_type(n, arrival_per_h=7200.0) for n in ("a", "b", "c")] + [query_type("chat", delay_slo_s=0.5)]
    conflict = conflict_of(problem(types, budget_usd=25.0))
    assert set(conflict.limits) == {delay("chat"), unmet("chat")}
    assert conflict.smallest
    assert conflict.enough_alone == ()
    assert conflict.message(problem(types)).endswith(
        "Other limits conflict as well: to lift one of these is not enough."
    )


def test_filters_that_miss_the_smallest_are_put_right_by_the_hitting_sets():
    """An oracle over sets of limits: {storage, unmet a} conflicts, and so do budget and all other caps."""
    types = [query_type(n) for n in "abcde"]
    base = problem(types)

    def feasible(variant, _):
        short = [q.name for q in variant.query_types if q.unmet_cap < 1]
        few = np.isfinite(variant.storage_capacity_gb) and "a" in short
        return not few and not (np.isfinite(variant.budget_usd) and set("bcde") <= set(short))

    conflict = smallest_conflict(base, feasible, time_limit_s=30.0)
    assert set(conflict.limits) == {STORAGE, unmet("a")}
    assert conflict.smallest
    assert conflict.enough_alone == ()


def made_up(seed):
    """A problem of three types and random families of conflicts, each with the unmet caps of its types."""
    rng = np.random.default_rng(seed)
    base = problem([query_type(n) for n in "abc"])
    limits = limits_of(base)
    families = []
    for _ in range(6):
        chosen = {limits[n] for n in rng.choice(len(limits), size=rng.integers(2, 5), replace=False)}
        families.append(chosen | {unmet(limit.query_type or "a") for limit in chosen})

    def feasible(variant, _):
        kept = set(limits_of(variant))
        return not any(family <= kept for family in families)

    return base, families, feasible


@pytest.mark.parametrize("seed", range(12))
def test_against_made_up_conflicts(seed):
    base, families, feasible = made_up(seed)
    conflict = smallest_conflict(base, feasible, time_limit_s=30.0)
    assert set(conflict.limits) in families
    assert len(conflict.limits) == min(map(len, families))
    assert conflict.smallest
    assert conflict.irreducible
    in_all = set.intersection(*families)
    assert set(conflict.enough_alone) == in_all & set(conflict.limits)


@pytest.mark.parametrize("seed", range(12))
def test_the_filters_alone_find_irreducible_conflicts(seed, monkeypatch):
    """Where time does not do for the proof."""
    monkeypatch.setattr("policies.heuristics.conflict.search._smallest", lambda ask, limits, best: (best, False))
    base, families, feasible = made_up(seed)
    conflict = smallest_conflict(base, feasible, time_limit_s=30.0)
    assert set(conflict.limits) in families
    assert not any(family < set(conflict.limits) for family in families)
    assert conflict.irreducible
    assert not conflict.smallest


def test_what_is_not_decided_is_kept_and_said():
    bad = problem(TWO, budget_usd=5.0)

    def undecided_without_storage(variant, seconds):
        return is_feasible(variant, seconds) if np.isfinite(variant.storage_capacity_gb) else None

    conflict = conflict_of(bad, undecided_without_storage)
    assert {BUDGET, STORAGE} < set(conflict.limits)
    assert not conflict.irreducible
    assert not conflict.smallest
    assert conflict.enough_alone is None
    assert "This may not be the smallest such set" in conflict.message(bad)
    assert "a plan exists" not in conflict.message(bad)


def test_without_time_all_limits_are_kept_and_the_oracle_is_not_asked():
    bad = problem(TWO, budget_usd=5.0)
    conflict = smallest_conflict(bad, lambda *_: pytest.fail("no time for that"), time_limit_s=0.0)
    assert conflict.limits == limits_of(bad)
    assert not conflict.irreducible


def test_the_oracle_is_never_given_more_than_there_is():
    given = []

    def feasible(variant, seconds):
        given.append(seconds)
        return is_feasible(variant, seconds)

    conflict_of(problem(TWO, budget_usd=5.0), feasible, seconds=10.0)
    assert given
    assert 0 < min(given) <= max(given) <= 10.0 / 2


def test_a_message_in_the_words_of_the_problem():
    bad = problem([query_type("chat", error_slo=0.1, unmet_cap=0.0)], budget_usd=15.0)
    assert conflict_of(bad).message(bad, cheapest_usd=20.0) == (
        "problem p is infeasible: these limits conflict: the budget of 15 USD per 10 h; all of chat must be served "
        "(unmet_cap 0); the error SLO of chat of 0.1. The cheapest fleet found that keeps every other limit spends "
        "20.00 USD. Without any one of them a plan exists."
    )


def test_what_a_fleet_would_spend_is_told_only_where_money_matters():
    bad = problem([query_type("chat", delay_slo_s=0.5)])
    assert conflict_of(bad).message(bad, cheapest_usd=20.0) == (
        "problem p is infeasible: these limits conflict: at least 0.9 of chat must be served (unmet_cap 0.1); the "
        "delay SLO of chat of 0.5 s. Without any one of them a plan exists."
    )


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (
            "no configuration",
            "infeasible: at least 0.9 of chat must be served (unmet_cap 0.1), but cannot be. Without it",
        ),
        ("storage", "the storage capacity of 1.5 GB; at least"),
        ("replicas", "at most 2 replicas of a configuration (max_replicas); at least"),
        ("error", "the error SLO of code of 0.05."),
    ],
)
def test_each_kind_has_its_words(case, says):
    bad, _ = CASES[case]
    assert says in conflict_of(bad).message(bad)


def test_only_some_ways_out():
    """Chat breaks the budget alone, code has a delay that nothing keeps: lifting one limit never does."""
    types = [query_type("chat"), query_type("code", delay_slo_s=0.5, arrival_per_h=0.0)]
    base = problem(types, budget_usd=5.0)
    assert conflict_of(base).enough_alone == ()
    # Two types that each break the budget: only without the budget is there a plan.
    bad = problem([query_type(n, arrival_per_h=36000.0) for n in ("chat", "code")], budget_usd=45.0)
    conflict = conflict_of(bad)
    assert conflict.enough_alone == (BUDGET,)
    assert "Of these, only without the budget of 45 USD per 10 h does a plan exist" in conflict.message(bad)


def test_many_limits_of_a_kind_are_told_together():
    """Five types of half a replica each need three replicas; there is money for two."""
    bad = problem([query_type(n, unmet_cap=0.05) for n in "abcde"], budget_usd=20.0)
    assert "the unmet caps of 5 query types (a, b, c, d, e)" in conflict_of(bad).message(bad)


def test_limits_that_cannot_have_a_part_are_none():
    free = [query_type("chat", unmet_cap=1.0), query_type("code", delay_slo_s=np.inf, error_slo=np.inf)]
    assert limits_of(problem(free, budget_usd=np.inf, storage_capacity_gb=np.inf)) == (unmet("code"),)
    assert REPLICAS in limits_of(problem(TWO, max_replicas=1))


def test_each_limit_is_lifted_alone():
    base = problem(TWO, max_replicas=1)
    assert enough_replicas(base) == 2  # the whole demand takes one
    for limit in limits_of(base):
        lifted = limit.lifted(base)
        assert set(limits_of(base)) - set(limits_of(lifted)) >= {limit}
        for name in ("delay_s", "error", "load", "kv", "cap", "allowed"):
            assert getattr(lifted, name) is getattr(base, name)
        if limit.kind is not LimitKind.UNMET:
            assert set(limits_of(base)) - set(limits_of(lifted)) == {limit}


class TestIsFeasible:
    def test_without_unmet_caps_to_serve_nothing_is_a_plan(self):
        assert is_feasible(problem([query_type("chat", unmet_cap=1.0)], budget_usd=0.0), 10.0)

    @pytest.mark.parametrize(("budget_usd", "expected"), [(20.0, True), (19.99, False), (0.0, False), (np.inf, True)])
    def test_the_budget_to_the_cent(self, budget_usd, expected):
        base = problem([query_type("chat", error_slo=0.1, unmet_cap=0.0)], budget_usd=budget_usd)
        assert is_feasible(base, 10.0) is expected

    def test_limits_of_zero(self):
        exact = problem([query_type("chat", error_slo=0.0, unmet_cap=0.0)], error_rate=[[0.0, 0.1]])
        assert is_feasible(exact, 10.0)
        assert not is_feasible(replace(exact, storage_capacity_gb=0.0), 10.0)
        assert not is_feasible(problem([query_type("chat", error_slo=0.0)]), 10.0)

    def test_a_mixture_that_no_greedy_choice_finds(self):
        """Half on each tier keeps both SLOs exactly; nothing else does."""
        types = [query_type("chat", delay_slo_s=2.0, error_slo=0.2, unmet_cap=0.0)]
        good = problem(types, delay_s=[[1.0, 3.0]], error_rate=[[0.3, 0.1]])
        assert is_feasible(good, 10.0)
        assert not is_feasible(replace(good, budget_usd=29.0), 10.0)
        assert not is_feasible(replace(good, query_types=(replace(types[0], error_slo=0.199),)), 10.0)

    def test_one_configuration_per_pair(self):
        """Two configurations of one pair: one is fast, the other exact, and the mixture would need both."""
        types = [query_type("chat", delay_slo_s=2.0, error_slo=0.2, unmet_cap=0.0)]
        fast = Configuration(model="m", tier="dear", tensor_parallel=1, pipeline_parallel=1)
        both = [fast, replace(fast, tensor_parallel=2)]
        bad = problem(types, configurations=both, delay_s=[[1.0, 3.0]], error_rate=[[0.3, 0.1]])
        assert is_feasible(bad, 10.0) is False
        other = [fast, replace(fast, tier="cheap")]
        assert is_feasible(problem(types, configurations=other, delay_s=[[1.0, 3.0]], error_rate=[[0.3, 0.1]]), 10.0)

    def test_no_time(self):
        types = [query_type("chat", delay_slo_s=2.0, error_slo=0.2, unmet_cap=0.0)]
        assert is_feasible(problem(types, delay_s=[[1.0, 3.0]], error_rate=[[0.3, 0.1]]), 0.0) in (None, True)
