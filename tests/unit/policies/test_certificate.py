"""Certificates by hand: what their duals prove, what they rule out, and every way in which they can be wrong."""

import copy
import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from policies.checking.certificate import (
    Certificate,
    Duals,
    Group,
    Node,
    Split,
    certificate_to_dict,
    read_certificate,
    write_certificate,
)
from policies.checking.universe import Universe
from policies.checking.verify import verify
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.errors import InputError
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType

CHAT = QueryType(
    name="chat",
    arrival_per_h=100.0,
    input_tokens=10.0,
    output_tokens=10.0,
    delay_slo_s=2.0,
    error_slo=0.2,
    delay_penalty_usd_per_query_s=0.01,  # 1 USD per second of mean delay
    unmet_penalty_usd_per_query=1.0,  # 100 USD
    unmet_cap=0.5,
    token_storage_gb_per_token=0.001,  # 2 GB, 1 USD
)
TIER = TierSize(
    name="s",
    memory_gb=10.0,
    compute_tflops=1.0,
    compute_efficiency=0.5,
    bandwidth_gb_s=1.0,
    price_usd_per_gpu_h=3.0,
    weight_factor=1.0,
)
ON_S = Configuration(model="m", tier="s", tensor_parallel=1, pipeline_parallel=1)
ON_T = Configuration(model="m", tier="t", tensor_parallel=1, pipeline_parallel=1)


def problem(**changes):
    """By default one type; on tier s an option costs 3 USD a replica, on tier t 5 USD, and 2 USD for the weights."""
    parts = {
        "name": "hand",
        "period_h": 1.0,
        "budget_usd": 50.0,
        "storage_price_usd_per_gb_h": 0.5,
        "storage_capacity_gb": 10.0,
        "max_replicas": 4,
        "query_types": (CHAT,),
        "models": (ModelSize(name="m", parameters_b=1.0, weights_gb=4.0, kv_mb_per_token=0.1),),
        "tiers": (TIER, replace(TIER, name="t", price_usd_per_gpu_h=5.0)),
        "configurations": (ON_S, ON_T),
        "delay_s": [[1.0, 4.0]],
        "error": [[0.1, 0.05]],
        "load": [[1.5, 0.4]],
        "kv": [[0.5, 1.2]],
        "cap": [1.0, 1.0],
        "capacity_rows": CapacityRows.BATCHING,
    } | changes
    for name in ("delay_s", "error", "load", "kv", "cap"):
        parts[name] = np.array(parts[name], dtype=np.float64)
    parts.setdefault("allowed", np.ones(parts["load"].shape, dtype=np.bool_))
    return PlanningProblem(**parts)


DUALS = Duals(demand=(30.0,), delay=(2.0,), error=(10.0,), budget=0.1, storage=0.25)


def certificate(bound_usd, *nodes):
    return Certificate(problem="hand", bound_usd=bound_usd, nodes=nodes)


def proves(duals, **changes):
    """What one node's duals prove, seen through a bound that nothing reaches."""
    return verify(problem(**changes), certificate(1e9, Node(duals=duals))).root_bound_usd


def options(**changes):
    """Configuration and replicas of the universe."""
    universe = Universe(problem(**changes))
    return list(zip(universe.configuration.tolist(), universe.replicas.tolist(), strict=True))


# -- the bound of a node --------------------------------------------------------------------------------------------


def test_the_bound_by_hand():
    """One replica on s earns 2/3 of 24.4 (its load is 1.5), two earn all of it; on t half (the delay) of 15.9."""
    constant = 30 - 2 * 2 - 10 * 0.2 - 0.1 * 50 - 0.25 * 10
    one = 1.1 * 5 + 0.25 * 4 - 24.4 * 2 / 3
    two = 1.1 * 8 + 0.25 * 4 - 24.4
    on_t = 1.1 * 7 + 0.25 * 4 - 0.5 * 15.9
    assert (one > two, on_t > 0) == (True, True)
    assert proves(DUALS) == pytest.approx(constant + two, rel=1e-9)
    assert proves(DUALS, max_replicas=1) == pytest.approx(constant + one, rel=1e-9)
    assert proves(DUALS, allowed=np.array([[False, True]])) == pytest.approx(constant, rel=1e-9)


def test_pairs_add_up_and_the_options_of_one_pair_do_not():
    """Two models on s: the best option of each counts, and one option of each only."""
    models = tuple(ModelSize(name=n, parameters_b=1.0, weights_gb=4.0, kv_mb_per_token=0.1) for n in "mn")
    twins = {"models": models, "configurations": (ON_S, replace(ON_S, model="n"))}
    same = {"delay_s": [[1.0, 1.0]], "error": [[0.1, 0.1]], "load": [[1.5, 1.5]], "kv": [[0.5, 0.5]]}
    assert proves(DUALS, **twins, **same) == pytest.approx(16.5 - 2 * 14.6, rel=1e-9)


def test_an_unmet_share_that_earns_counts_up_to_its_cap():
    duals = Duals(demand=(130.0,), delay=(0.0,), error=(0.0,))
    two = 8 - (130 - 1 - 1)
    on_t = 7 - 0.5 * (130 - 4 - 1)
    assert proves(duals) == pytest.approx(130 + 0.5 * (100 - 130) + two + on_t, rel=1e-9)


def test_the_smaller_capacity_limits_what_an_option_earns():
    """With a KV of 4 a replica holds a quarter; four of them what is asked."""
    duals = Duals(demand=(60.0,), delay=(0.0,), error=(0.0,))
    only_s = {"allowed": np.array([[True, False]]), "kv": [[4.0, 0.0]]}
    assert proves(duals, max_replicas=1, **only_s) == pytest.approx(60 + 5 - 58 / 4, rel=1e-9)
    assert proves(duals, max_replicas=4, **only_s) == pytest.approx(60 + 14 - 58, rel=1e-9)


def test_both_capacities_together_limit_what_an_option_earns():
    """Types that earn 8 and 8 and use load 1 + 2 and KV 2 + 1 on one replica: a third of each, which earns 16/3."""
    other = replace(CHAT, name="code")
    types = {"query_types": (CHAT, other), "configurations": (ON_S,), "max_replicas": 1, "cap": [1.0]}
    arrays = {"delay_s": [[1.0], [1.0]], "error": [[0.1], [0.1]], "load": [[1.0], [2.0]], "kv": [[2.0], [1.0]]}
    duals = Duals(demand=(10.0, 10.0), delay=(0.0, 0.0), error=(0.0, 0.0))
    assert proves(duals, **types, **arrays) == pytest.approx(20 + 5 - 16 / 3, rel=1e-9)


def test_a_cover_counts_with_its_factor():
    """Delay alone: s has the value 1/2 and is good, t has 2, so k is 2 and the option on s earns the multiplier."""
    cover = Duals(demand=(0.0,), delay=(0.0,), error=(0.0,), covers=((0, 1.0, 60.0),))
    assert proves(cover) == pytest.approx(60 + 0.5 * (100 - 2 * 60) + 5 - 60, rel=1e-9)
    good = replace(cover, covers=((0, 0.5, 60.0),))  # (1/2 + 1/2)/2 and (2 + 1/4)/2: k is 9
    assert proves(good) == pytest.approx(60 + 0.5 * (100 - 9 * 60) + 5 - 60, rel=1e-9)
    all_good = replace(cover, covers=((0, 0.0, 110.0),))  # 1/2 and 1/4: k is 1
    assert proves(all_good) == pytest.approx(110 + 0.5 * (100 - 110) + (5 - 110) + (7 - 110), rel=1e-9)


def test_infinite_limits_need_no_multiplier_and_stand_none():
    free = Duals(demand=(30.0,), delay=(0.0,), error=(0.0,))
    unlimited = {"budget_usd": math.inf, "storage_capacity_gb": math.inf}
    slow = {"query_types": (replace(CHAT, delay_slo_s=math.inf, error_slo=math.inf),)}
    assert proves(free, **unlimited) == pytest.approx(30 + (8 - 28) + (7 - 25 / 2), rel=1e-9)
    assert proves(free, **unlimited, **slow) == pytest.approx(30 + (8 - 28) + (7 - 25 / 1.2), rel=1e-9)
    for duals in (replace(free, budget=0.1), replace(free, storage=0.1)):
        assert proves(duals, **unlimited) == -math.inf
    for duals in (replace(free, delay=(1.0,)), replace(free, error=(1.0,))):
        assert proves(duals, **unlimited, **slow) == -math.inf


def test_multipliers_beyond_double_precision_prove_nothing():
    """The sum would be 100 + 1e18 - 1e18, of which nothing is left but rounding."""
    for demand in (1e18, 1e300):
        duals = Duals(demand=(demand,), delay=(0.0,), error=(0.0,))
        everything = {"query_types": (replace(CHAT, unmet_cap=1.0),), "allowed": np.array([[False, False]])}
        assert not proves(duals, **everything) > -1000
        verdict = verify(problem(**everything), certificate(101.0, Node(duals=duals)))
        assert not verdict.accepted
    overflow = Duals(demand=(1.7e308,), delay=(1.7e308,), error=(0.0,), covers=((0, 1.0, 1.7e308),))
    assert not verify(problem(), certificate(1.0, Node(duals=overflow))).accepted


def test_without_multipliers_nothing_is_lost_to_rounding():
    zeros = Duals(demand=(0.0,), delay=(0.0,), error=(0.0,))
    free = {"tiers": tuple(replace(TIER, name=name, price_usd_per_gpu_h=0.0) for name in "st")}
    assert proves(zeros) == proves(zeros, **free) == 0.0
    assert verify(problem(), certificate(0.0, Node(duals=zeros))).accepted


# -- the universe ---------------------------------------------------------------------------------------------------


def test_no_more_replicas_than_can_be_filled():
    assert options() == [(0, 1), (0, 2), (1, 1)]
    assert options(load=[[2.0, 0.4]]) == [(0, 1), (0, 2), (1, 1)]  # exactly two
    assert options(load=[[2.1, 0.4]]) == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert options(kv=[[0.5, 4.2]]) == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]  # half of 4.2, since the delay halves
    assert options(cap=[0.5, 1.0]) == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert options(load=[[0.0, 0.4]], kv=[[0.0, 0.0]]) == [(0, 1), (1, 1)]
    assert options(max_replicas=1) == [(0, 1), (1, 1)]


def test_options_that_no_limit_allows_are_left_out():
    assert options(budget_usd=7.5) == [(0, 1), (1, 1)]
    assert options(budget_usd=7.0, error=[[0.1, 0.1]]) == [(0, 1), (1, 1)]  # the budget may be used up
    assert options(storage_capacity_gb=3.9) == []
    assert options(allowed=np.array([[False, True]])) == [(1, 1)]
    assert options(query_types=(replace(CHAT, error_slo=0.0),), error=[[0.1, 0.0]]) == [(1, 1)]
    assert options(cap=[0.0, 1.0]) == [(1, 1)]
    assert options(cap=[0.0, 1.0], load=[[0.0, 0.4]]) == [(0, 1), (1, 1)]  # without load no capacity is needed
    idle = {"cap": [0.0, 1.0], "load": [[0.0, 0.4]], "error": [[0.1, 0.1]]}
    assert options(configurations=(ON_S, replace(ON_S, tensor_parallel=2)), **idle) == [(0, 1)]


PAIR = {
    "configurations": (ON_S, replace(ON_S, tensor_parallel=2)),
    "delay_s": [[1.0, 1.0]],
    "error": [[0.1, 0.1]],
    "load": [[1.5, 0.75]],
    "kv": [[1.0, 0.5]],
}


def test_of_equals_the_first_stays():
    """Two replicas of one GPU and one replica of two are the same in every respect."""
    assert options(**PAIR) == [(0, 1), (0, 2)]
    swapped = {"configurations": PAIR["configurations"][::-1], "load": [[0.75, 1.5]], "kv": [[0.5, 1.0]]}
    assert options(**PAIR | swapped) == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("change", "stay"),
    [
        ({"delay_s": [[1.0, 0.9]]}, [(0, 1), (1, 1)]),  # the wide replica is faster, so it beats two narrow ones
        ({"delay_s": [[0.9, 1.0]]}, [(0, 1), (0, 2)]),
        ({"delay_s": [[0.9, 1.0]], "error": [[0.1, 0.09]]}, [(0, 1), (0, 2), (1, 1)]),  # each has its merit
        ({"load": [[1.5, 0.9]], "delay_s": [[1.0, 0.9]]}, [(0, 1), (1, 1)]),  # more load, but all fits
        ({"load": [[1.5, 1.1]], "delay_s": [[1.0, 0.9]]}, [(0, 1), (0, 2), (1, 1), (1, 2)]),
        ({"kv": [[1.5, 1.1]], "delay_s": [[1.0, 0.9]]}, [(0, 1), (0, 2), (1, 1), (1, 2)]),
        ({"kv": [[1.5, 1.0]], "delay_s": [[1.0, 0.9]]}, [(0, 1), (1, 1)]),
        ({"tiers": (replace(TIER, price_usd_per_gpu_h=0.0),)}, [(0, 2)]),  # free: more replicas are no worse
    ],
)
def test_dominated_options_are_left_out(change, stay):
    assert options(**PAIR | change) == stay


def test_no_option_stands_in_for_one_that_serves_what_it_does_not():
    other = replace(CHAT, name="code")
    both = {name: [row[0]] * 2 for name, row in PAIR.items() if name != "configurations"}
    both["delay_s"] = [[1.0, 0.9], [1.0, 0.9]]
    both |= {"load": [[0.5, 0.2], [0.5, 0.2]], "kv": [[0.2, 0.1], [0.2, 0.1]], "query_types": (CHAT, other)}
    both |= {"tiers": (replace(TIER, price_usd_per_gpu_h=0.0),), "configurations": PAIR["configurations"]}
    assert options(**both) == [(1, 1)]
    assert options(**both, allowed=np.array([[True, True], [True, False]])) == [(0, 1), (1, 1)]
    assert options(**both, allowed=np.array([[True, True], [False, True]])) == [(1, 1)]


# -- one node -------------------------------------------------------------------------------------------------------


def test_one_node_proves_its_bound_and_no_more():
    bound_usd = proves(DUALS)
    assert bound_usd == pytest.approx(1.9)
    accepted = verify(problem(), certificate(bound_usd, Node(duals=DUALS)))
    assert (accepted.accepted, accepted.reason, accepted.nodes) == (True, None, 1)
    assert (accepted.bound_usd, accepted.root_bound_usd) == (bound_usd, bound_usd)
    refused = verify(problem(), certificate(20.0, Node(duals=DUALS)))
    assert not refused.accepted
    assert "node 0 is neither closed nor split" in refused.reason


def test_slightly_above_its_bound_a_node_is_refused():
    """Without any option nothing can be ruled out, so that the bound is sharp."""
    none = {"allowed": np.array([[False, False]])}
    bound_usd = proves(DUALS, **none)
    assert bound_usd == pytest.approx(16.5)
    assert verify(problem(**none), certificate(bound_usd, Node(duals=DUALS))).accepted
    refused = verify(problem(**none), certificate(bound_usd * (1 + 1e-7), Node(duals=DUALS)))
    assert not refused.accepted
    assert "its bound is 16.5 USD" in refused.reason


def test_options_are_ruled_out_by_what_a_plan_with_them_costs():
    """A plan with t costs at least 1.9 + 0.75; one with a single replica on s 16.5 - 9.77; with two 1.9."""
    best = replace(DUALS, restrictions=())
    group = Group(tiers=("s",))

    def tree(bound_usd):
        split = Split(group=group, at=0, below=1, above=2)
        return certificate(bound_usd, Node(duals=best, split=split), Node(duals=best), Node(duals=best))

    # Below, nothing on s is left and t is worth nothing: 16.5. Above, two replicas on s remain: 1.9.
    assert verify(problem(), tree(1.9 - 1e-6)).nodes == 1
    verdict = verify(problem(), tree(2.0))
    assert (verdict.accepted, verdict.nodes) == (False, 3)
    assert verdict.reason.startswith("node 2 is neither closed nor split: its bound is 1.9 USD")


def test_a_large_reduced_cost_alone_rules_nothing_out():
    """The optimum is 10.5 or less (two replicas on s); the first node's budget makes s look dear, and no more."""
    dear = Duals(demand=(0.0,), delay=(0.0,), error=(0.0,), budget=100.0)
    much = Duals(demand=(60.0,), delay=(0.0,), error=(0.0,))
    split = Split(group=Group(), at=1, below=1, above=2)
    verdict = verify(problem(), certificate(40.0, Node(duals=dear, split=split), Node(duals=much), Node(duals=much)))
    assert not verdict.accepted


def test_ruling_out_one_option_can_close_the_node():
    """Serving all on s costs 10; with 9.99 nothing cheap is left, with 10 the duals prove it themselves."""
    duals = Duals(demand=(30.0,), delay=(0.0,), error=(0.0,))
    only_s = {"allowed": np.array([[True, False]])}
    assert proves(duals, **only_s) == pytest.approx(30 + 8 - 28)
    assert verify(problem(**only_s), certificate(10.0, Node(duals=duals))).accepted
    assert not verify(problem(**only_s), certificate(10.0001, Node(duals=duals))).accepted
    # With t, 10 - 5.5: t serves at most half and its plan costs more than 4.5, but not more than 10.
    assert proves(duals) == pytest.approx(10 - 5.5)
    assert not verify(problem(), certificate(10.0, Node(duals=duals))).accepted


# -- trees ----------------------------------------------------------------------------------------------------------


def two_levels(bound_usd):
    """On s first: without it half stays unmet at best; with it, one replica or two."""
    without = Duals(demand=(100.0,), delay=(0.0,), error=(0.0,))
    at_least_one = Duals(demand=(22.0,), delay=(0.0,), error=(0.0,), restrictions=((0, 20.0),))
    on_s = Split(group=Group(tiers=("s",)), at=0, below=1, above=2)
    two_gpus = Split(group=Group(tiers=("s",), gpus=(2,)), at=0, below=3, above=4)
    return certificate(
        bound_usd,
        Node(split=on_s),
        Node(duals=without),
        Node(split=two_gpus),
        Node(duals=at_least_one),
        Node(duals=Duals(demand=(2.0,), delay=(0.0,), error=(0.0,), restrictions=((1, 8.0),))),
    )


def test_a_tree_of_two_levels():
    """The optimum is two replicas on s: 8 USD, 1 USD of delay and 1 USD of tokens. The root has no duals."""
    verdict = verify(problem(), two_levels(10.0))
    assert (verdict.accepted, verdict.reason, verdict.nodes, verdict.root_bound_usd) == (True, None, 5, -math.inf)
    verdict = verify(problem(), two_levels(10.001))
    assert not verdict.accepted
    assert verdict.reason.startswith("node 4 is neither closed nor split: its bound is 10 USD, not 10.001 USD")


def test_a_restriction_counts_on_its_own_side():
    """Above: at least one on s, so the node that asks for none of s gains nothing by a multiplier."""
    duals = Duals(demand=(0.0,), delay=(0.0,), error=(0.0,), restrictions=((0, 5.0),))
    split = Split(group=Group(tiers=("s",)), at=0, below=1, above=2)
    nothing = Node(duals=Duals(demand=(0.0,), delay=(0.0,), error=(0.0,)))
    served = {"query_types": (replace(CHAT, unmet_cap=1.0, unmet_penalty_usd_per_query=0.0),)}
    above = certificate(5.0, Node(split=split), nothing, Node(duals=duals))
    verdict = verify(problem(**served), above)
    assert verdict.reason.startswith("node 1 is neither closed nor split: its bound is 0 USD")
    below = certificate(5.0, Node(split=split), Node(duals=duals), Node(duals=duals))
    assert verify(problem(**served), below).reason.startswith("node 1 is neither closed nor split: its bound is 0 USD")


@pytest.mark.parametrize(
    ("group", "counts"),
    [
        (Group(), [1, 1, 1]),
        (Group(count="gpus"), [1, 2, 1]),
        (Group(models=("m",), tiers=("t",)), [0, 0, 1]),
        (Group(models=()), [0, 0, 0]),
        (Group(gpus=(1, 3)), [1, 0, 1]),
        (Group(configuration=(1, 1, None, 2), count="gpus"), [0, 2, 0]),
        (Group(configuration=(1, 1, None, 1)), [1, 0, 1]),
        (Group(configuration=(1, 1, 0.05, 1)), [0, 0, 0]),
        (Group(configuration=(2, 1, None, 1)), [0, 0, 0]),
    ],
)
def test_groups_count_what_matches(group, counts):
    assert Universe(problem()).count(group).tolist() == counts


# -- files ----------------------------------------------------------------------------------------------------------

DUALS_DOCUMENT = {
    "demand": [30.0],
    "delay": [2.0],
    "error": [10],
    "budget": 0.1,
    "storage": 0.25,
    "covers": [[0, 0.5, 1.0]],
    "restrictions": [],
}
GROUP_DOCUMENT = {
    "models": ["m"],
    "tiers": None,
    "gpus": [1, 2],
    "configuration": [1, 1, None, 2],
    "count": "gpus",
}
DOCUMENT = {
    "format": "tokenfleet-certificate/1",
    "problem": "hand",
    "bound_usd": 9.5,
    "nodes": [
        {"duals": DUALS_DOCUMENT, "split": {"group": GROUP_DOCUMENT, "at": 1, "below": 1, "above": 2}},
        {"duals": copy.deepcopy({**DUALS_DOCUMENT, "restrictions": [[0, 0.5]]}), "split": None},
        {"duals": None, "split": None},
    ],
}
MISSING = object()


def changed(document, *changes):
    document = copy.deepcopy(document)
    for (*path, last), value in changes:
        part = document
        for step in path:
            part = part[step]
        if value is MISSING:
            del part[last]
        else:
            part[last] = value
    return document


@pytest.fixture
def write(tmp_path):
    def to_file(document):
        path = tmp_path / "certificate.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return to_file


def complaints(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.problems


def test_a_certificate_survives_its_file(tmp_path, write):
    read = read_certificate(write(DOCUMENT))
    assert certificate_to_dict(read) == DOCUMENT
    assert read.nodes[0].split.group.configuration == (1, 1, None, 2)
    path = tmp_path / "again.json"
    write_certificate(path, read)
    assert read_certificate(path) == read
    assert len(path.read_text(encoding="utf-8").splitlines()) == 5 + len(read.nodes) + 2
    packed = tmp_path / "again.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_certificate(packed) == read
    assert not verify(problem(), read).accepted


SPLIT = ("nodes", 0, "split")


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        (("format",), "tokenfleet-certificate/2", "format", "tokenfleet-certificate/1"),
        (("problem",), 1, "problem", "valid string"),
        (("bound_usd",), math.nan, "bound_usd", "finite"),
        (("bound_usd",), "9.5", "bound_usd", "valid number"),
        (("bound_usd",), MISSING, "bound_usd", "Field required"),
        (("nodes",), [], "nodes", "at least 1"),
        (("extra",), 1, "extra", "does not exist"),
        (("nodes", 1, "duals"), MISSING, "nodes[1].duals", "Field required"),
        (("nodes", 1, "split"), MISSING, "nodes[1].split", "Field required"),
        (("nodes", 1, "duals", "delay", 0), -1e-9, "nodes[1].duals.delay[0]", "greater than or equal to 0"),
        (("nodes", 1, "duals", "error", 0), -1, "nodes[1].duals.error[0]", "greater than or equal to 0"),
        (("nodes", 1, "duals", "demand", 0), math.inf, "nodes[1].duals.demand[0]", "finite"),
        (("nodes", 1, "duals", "demand", 0), True, "nodes[1].duals.demand[0]", "valid number"),
        (("nodes", 1, "duals", "budget"), -1, "nodes[1].duals.budget", "greater than or equal to 0"),
        (("nodes", 1, "duals", "storage"), -1, "nodes[1].duals.storage", "greater than or equal to 0"),
        (("nodes", 0, "duals", "covers", 0, 0), 0.5, "nodes[0].duals.covers[0][0]", "valid integer"),
        (("nodes", 0, "duals", "covers", 0, 1), 1.5, "nodes[0].duals.covers[0][1]", "less than or equal to 1"),
        (("nodes", 0, "duals", "covers", 0, 2), -1, "nodes[0].duals.covers[0][2]", "greater than or equal to 0"),
        (("nodes", 0, "duals", "covers", 0), [0, 1.0], "nodes[0].duals.covers[0][2]", "Field required"),
        (("nodes", 1, "duals", "restrictions", 0, 1), -1, "nodes[1].duals.restrictions[0][1]", "or equal to 0"),
        (("nodes", 1, "duals", "restrictions", 0, 0), -1, "nodes[1].duals.restrictions[0][0]", "or equal to 0"),
        ((*SPLIT, "at"), 0.5, "nodes[0].split.at", "valid integer"),
        ((*SPLIT, "at"), -1, "nodes[0].split.at", "greater than or equal to 0"),
        ((*SPLIT, "group", "count"), "replicas", "nodes[0].split.group.count", "'deployments' or 'gpus'"),
        ((*SPLIT, "group", "models"), "m", "nodes[0].split.group.models", "valid tuple"),
        ((*SPLIT, "group", "gpus", 0), 0, "nodes[0].split.group.gpus[0]", "greater than or equal to 1"),
        ((*SPLIT, "group", "configuration", 2), 0.0, "nodes[0].split.group.configuration[2]", "greater than 0"),
        ((*SPLIT, "group", "configuration"), [1, 1, 1], "nodes[0].split.group.configuration[3]", "Field required"),
    ],
)
def test_each_mistake_in_a_file_is_named_with_its_field(write, path, value, field, says):
    file = write(changed(DOCUMENT, (path, value)))
    (found,) = complaints(read_certificate, file)
    assert found.startswith(f"{file}: {field}: ")
    assert says in found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            [((*SPLIT, "below"), 0)],
            ["nodes[0].split.below: expected an index larger", "nodes[1]: expected exactly one"],
        ),
        ([((*SPLIT, "above"), 3)], ["nodes[0].split.above: expected one of the 3 nodes", "nodes[2]: expected exactly"]),
        (
            [((*SPLIT, "above"), 1)],
            ["nodes[1]: expected exactly one parent, found 2", "nodes[2]: expected exactly one"],
        ),
        ([(SPLIT, None)], ["nodes[1]: expected exactly one parent, found 0", "nodes[2]: expected exactly one"]),
        (
            [(("nodes", 1, "split"), {**DOCUMENT["nodes"][0]["split"], "below": 0})],
            ["nodes[1].split.below", "nodes[2]"],
        ),
    ],
)
def test_what_is_no_tree_is_refused(write, changes, says):
    file = write(changed(DOCUMENT, *changes))
    found = complaints(read_certificate, file)
    assert len(found) == len(says)
    for line, text in zip(found, says, strict=True):
        assert line.startswith(f"{file}: {text}")


# -- what does not fit the problem ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"delay": (-2.0,)}, "nodes[0].duals.delay[0]: expected a finite number of at least 0, found -2.0"),
        ({"error": (-2.0,)}, "nodes[0].duals.error[0]: "),
        ({"error": (math.inf,)}, "nodes[0].duals.error[0]: "),
        ({"budget": -0.1}, "nodes[0].duals.budget: "),
        ({"storage": math.nan}, "nodes[0].duals.storage: "),
        ({"demand": (math.nan,)}, "nodes[0].duals.demand[0]: "),
        ({"demand": (1.0, 1.0)}, "nodes[0].duals.demand: expected 1 values, one per query type, found 2"),
        ({"delay": ()}, "nodes[0].duals.delay: expected 1 values"),
        ({"covers": ((1, 0.5, 1.0),)}, "nodes[0].duals.covers[0][0]: "),
        ({"covers": ((0, 1.5, 1.0),)}, "nodes[0].duals.covers[0][1]: "),
        ({"covers": ((0, 0.5, -1.0),)}, "nodes[0].duals.covers[0][2]: "),
        (
            {"restrictions": ((0, 1.0),)},
            "nodes[0].duals.restrictions[0][0]: expected the index of one of 0 on the path",
        ),
        ({"restrictions": ((-1, 1.0),)}, "nodes[0].duals.restrictions[0][0]: "),
    ],
)
def test_tampered_duals_are_refused(change, says):
    (found,) = complaints(verify, problem(), certificate(1.0, Node(duals=replace(DUALS, **change))))
    assert found.startswith(f"certificate: {says}")


def test_a_certificate_of_another_problem_is_refused():
    (found,) = complaints(verify, problem(name="other"), certificate(1.0, Node(duals=DUALS)))
    assert found == "certificate: problem: the certificate is of 'hand', not of 'other'"


def test_names_and_trees_are_checked_without_a_file_too():
    split = Split(group=Group(models=("n",), tiers=("u",), count="replicas"), at=-1, below=1, above=2)
    found = complaints(verify, problem(), certificate(math.nan, Node(split=split), Node(), Node()))
    fields = [
        "bound_usd",
        *(f"nodes[0].split.{name}" for name in ("group.models[0]", "group.tiers[0]", "group.count", "at")),
    ]
    assert [line.split(": ")[1] for line in found] == fields
    loop = replace(split, below=0, above=0)
    assert len(complaints(verify, problem(), certificate(1.0, Node(split=loop)))) == 2
    assert complaints(verify, problem(), certificate(1.0)) == ("certificate: nodes: expected at least one",)


def test_a_cover_needs_positive_limits():
    exact = problem(query_types=(replace(CHAT, error_slo=0.0),))
    duals = replace(DUALS, covers=((0, 0.5, 1.0),))
    (found,) = complaints(verify, exact, certificate(1.0, Node(duals=duals)))
    assert found.startswith("certificate: nodes[0].duals.covers[0][0]: query type 0 has a limit of 0")


def test_routes_without_a_finite_delay_are_refused():
    (found,) = complaints(verify, problem(delay_s=[[math.inf, 4.0]]), certificate(1.0, Node(duals=DUALS)))
    assert "has a route that is allowed and has no finite delay" in found
    assert verify(
        problem(delay_s=[[math.inf, 4.0]], allowed=np.array([[False, True]])), certificate(1.0, Node(duals=DUALS))
    ).accepted
