"""The `batching` capacity rows by hand: operating points, work, load, KV cache, delay, and which routes are allowed."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from simulator.catalog import Catalog, LlmModel, Tier, load_catalog
from simulator.catalog.configuration import Configuration
from simulator.delay import StepCost
from simulator.errors import InputError
from simulator.moments import TokenMoments
from simulator.planning.batching_rows import BatchingType, batching_problem, operating_points
from simulator.planning.problem import CapacityRows, QueryType

STEP = StepCost(base_s=0.010, prefill_s_per_token=1e-4, decode_s_per_sequence=2e-4, context_s_per_token=1e-7)


@dataclass(frozen=True)
class HalvedByTp:
    """A delay model of round numbers: TP halves every coefficient."""

    def step_cost(self, model, tier, n, m):
        del model, tier, m
        return STEP.scaled(1 / n)


TIER = replace(load_catalog().tiers["a6000-fp16"], name="t", memory_gb=20.0, weight_factor=1.0)
MODEL = LlmModel(
    name="m",
    label="m",
    parameters_b=5.0,
    weights_gb=10.0,
    layers=1,
    attention_heads=8,
    kv_heads=8,
    head_dim=1,
    hidden_size=8,
    kv_bytes_per_token=1e6,
    error=0.1,
)
ONE = Configuration(model="m", tier="t", tensor_parallel=1, pipeline_parallel=1)
TWO = replace(ONE, tensor_parallel=2)
KV_ONE, KV_TWO = 8_000, 26_000  # 90 % of 20 GB (40 GB), less 10 GB of weights, at 1 MB a token

CHAT = BatchingType(
    query_type=QueryType(
        name="chat",
        arrival_per_h=7200.0,
        input_tokens=100.0,
        output_tokens=50.0,
        delay_slo_s=10.0,
        error_slo=0.5,
        unmet_cap=0.0,
    ),
    tokens=TokenMoments.means(100.0, 50.0, 6000.0, 3000.0),  # E[h f], not E[h] E[f]; E[f^2], not E[f]^2
    tpot_slo_s=0.05,
)
WORK_S = 1e-4 * 100 + 2e-4 * 50 + 1e-7 * (6000 + 3000 / 2)
CONTEXT = 6000 + 3000 / 2


def catalog(*, model: LlmModel = MODEL, tier: Tier = TIER) -> Catalog:
    return Catalog(models={"m": model}, tiers={"t": tier}, gpus={}, precisions={}, provenance=())


def rows(types=(CHAT,), configurations=(ONE,), targets=(0.05,), error=None, **changes):
    parts = {
        "name": "rows",
        "period_h": 0.5,
        "budget_usd": 7.0,
        "storage_price_usd_per_gb_h": 0.1,
        "storage_capacity_gb": 99.0,
        "max_replicas": 3,
        "types": list(types),
        "catalog": catalog(),
        "delay_model": HalvedByTp(),
        "configurations": list(configurations),
        "tpot_targets_s": targets,
        "token_budget": 10**9,
        "error": np.full((len(types), len(configurations)), 0.1) if error is None else error,
    }
    return batching_problem(**(parts | changes))


def changed(**changes):
    """CHAT with other limits or lengths."""
    _, h, f, hf, ff, _ = CHAT.tokens.sums
    known = {"input_tokens": h, "output_tokens": f, "input_output": hf, "output_squared": ff}
    lengths = known | {key: changes.pop(key) for key in list(changes) if key in known}
    own = {key: changes.pop(key) for key in list(changes) if key in BatchingType.__dataclass_fields__}
    means = {key: lengths[key] for key in ("input_tokens", "output_tokens")}
    query_type = replace(CHAT.query_type, **means, **changes)
    return replace(CHAT, query_type=query_type, tokens=TokenMoments.means(*lengths.values()), **own)


def test_operating_points_are_each_configuration_at_each_target():
    points = operating_points([ONE, TWO], [0.05, 0.02, 0.05])
    assert [(p.tensor_parallel, p.tpot_target_s) for p in points] == [(1, 0.02), (1, 0.05), (2, 0.02), (2, 0.05)]
    assert len(set(points)) == 4
    assert len({p.pair for p in points}) == 1


def test_load_is_the_work_over_what_the_target_leaves_for_it():
    """Two requests a second of 20.75 ms each; at 50 ms a token the base of 10 ms leaves 0.8 of the time for work."""
    problem = rows()
    assert pytest.approx(0.02075) == WORK_S
    assert problem.load[0, 0] == pytest.approx(2 * 0.02075 / 0.8)
    assert problem.capacity_rows is CapacityRows.BATCHING


def test_a_small_token_budget_limits_the_prefill():
    """150 tokens in steps of 30 take 5 steps of 10 ms base each: 70.75 ms a request instead of 25.9 ms."""
    assert rows(token_budget=30).load[0, 0] == pytest.approx(2 * (0.02075 + 5 * 0.01))
    assert rows(token_budget=1000).load[0, 0] == pytest.approx(2 * 0.02075 / 0.8)


def test_kv_is_the_tokens_in_flight_over_the_cache():
    """Rate x T x (E[h f] + E[f^2] / 2) = 750 tokens of 8000."""
    assert rows().kv[0, 0] == pytest.approx(2 * 0.05 * 7500 / KV_ONE)


def test_delay_is_half_a_step_of_waiting_the_prefill_and_the_decode():
    assert rows().delay_s[0, 0] == pytest.approx(1.5 * 0.05 + 1e-4 * 100 + 49 * 0.05)


def test_an_answer_of_less_than_a_token_needs_no_decode():
    short = changed(output_tokens=0.0, input_output=0.0, output_squared=0.0)
    assert rows([short]).delay_s[0, 0] == pytest.approx(1.5 * 0.05 + 1e-4 * 100)


def test_more_gpus_and_other_targets():
    """TP 2 halves base and work; a smaller target leaves less for work and holds fewer tokens."""
    problem = rows(configurations=[ONE, TWO], targets=[0.02, 0.05])
    base_s, work_s = np.array([0.01, 0.01, 0.005, 0.005]), WORK_S / np.array([1, 1, 2, 2])
    target_s = np.array([0.02, 0.05, 0.02, 0.05])
    kv_tokens = np.array([KV_ONE, KV_ONE, KV_TWO, KV_TWO])
    assert [c.tpot_target_s for c in problem.configurations] == target_s.tolist()
    assert problem.load[0] == pytest.approx(2 * work_s / (1 - base_s / target_s))
    assert problem.kv[0] == pytest.approx(2 * target_s * CONTEXT / kv_tokens)
    assert problem.delay_s[0] == pytest.approx(1.5 * target_s + np.array([1, 1, 0.5, 0.5]) * 0.01 + 49 * target_s)
    assert problem.cap.tolist() == [1.0] * 4


def test_load_grows_with_the_rate_and_the_delay_does_not():
    once, twice = rows(), rows([changed(arrival_per_h=14400.0)])
    assert twice.load == pytest.approx(2 * once.load)
    assert twice.kv == pytest.approx(2 * once.kv)
    assert twice.delay_s == pytest.approx(once.delay_s)


def test_what_is_passed_on():
    problem = rows(
        configurations=[ONE, TWO], targets=[0.02, 0.05], error=np.array([[0.1, 0.2]]), cap=0.6, memory_utilisation=0.6
    )
    assert problem.error.tolist() == [[0.1, 0.1, 0.2, 0.2]]
    assert problem.cap.tolist() == [0.6] * 4
    assert problem.kv[0, 1] == pytest.approx(2 / 0.6 * 0.05 * 7500 / 2_000)  # 60 % of 20 GB, less 10 GB
    assert (problem.name, problem.period_h, problem.budget_usd, problem.max_replicas) == ("rows", 0.5, 7.0, 3)
    assert (problem.storage_price_usd_per_gb_h, problem.storage_capacity_gb) == (0.1, 99.0)
    assert problem.query_types == (CHAT.query_type,)
    assert problem.models[0].weights_gb == 10.0
    assert problem.tiers[0].memory_gb == 20.0


class TestHeadroom:
    """Caps on the load: 0.5 and 0.25 of two types, where 20.75 ms a request at 2 a second fill 0.8 of the time."""

    OTHER = changed(name="other")

    def test_a_type_at_a_lower_cap_counts_for_more(self):
        """The row is that of the higher cap: 51.9 ms over 0.5; the type at half of it takes twice as much."""
        problem = rows([CHAT, self.OTHER], cap=np.array([[0.5], [0.25]]))
        assert problem.cap.tolist() == [0.5]
        assert problem.load[:, 0] == pytest.approx(2 * 0.02075 / 0.8 * np.array([1, 2]))
        filled = problem.load[:, 0] / problem.cap[0]
        assert filled == pytest.approx(2 * 0.02075 / 0.8 / np.array([0.5, 0.25]))

    def test_kv_tokens_are_those_in_flight_when_demand_rises_to_the_limit(self):
        """750 tokens of 8000 at the load that is planned: 1500 at twice that, 3000 at four times."""
        problem = rows([CHAT, self.OTHER], cap=np.array([[0.5], [0.25]]))
        assert problem.kv[:, 0] == pytest.approx([1500 / KV_ONE, 3000 / KV_ONE])

    def test_delay_is_that_at_the_load_that_is_planned(self):
        """0.8 x 0.5 of the time is work, so that a token takes 10 ms / 0.6; at a cap of 0.25 10 ms / 0.8."""
        problem = rows([CHAT, self.OTHER], cap=np.array([[0.5], [0.25]]))
        tpot_s = np.array([0.01 / 0.6, 0.0125])
        assert problem.delay_s[:, 0] == pytest.approx(1.5 * tpot_s + 0.01 + 49 * tpot_s)

    def test_caps_of_configurations(self):
        """TP 2 at a quarter, both at two targets; a cap that holds for all types leaves the load as it is."""
        problem = rows([CHAT, self.OTHER], configurations=[ONE, TWO], targets=[0.02, 0.05], cap=np.array([0.5, 0.25]))
        assert problem.cap.tolist() == [0.5, 0.5, 0.25, 0.25]
        plain = rows([CHAT, self.OTHER], configurations=[ONE, TWO], targets=[0.02, 0.05])
        assert problem.load == pytest.approx(plain.load)
        assert problem.kv == pytest.approx(plain.kv / problem.cap)
        assert (problem.delay_s < plain.delay_s).all()

    def test_one_number_is_the_cap_of_all(self):
        by_number, by_route = rows([CHAT, self.OTHER], cap=0.3), rows([CHAT, self.OTHER], cap=np.full((2, 1), 0.3))
        for name in ("cap", "load", "kv", "delay_s"):
            assert getattr(by_number, name) == pytest.approx(getattr(by_route, name))

    def test_a_ttft_limit_is_held_against_the_load_that_is_planned(self):
        """35 ms at half the load (half a step more, 10 ms of prefill), 85 ms at the limit."""
        hasty = changed(ttft_slo_s=0.0351)
        assert rows([hasty], cap=0.5).allowed.all()
        with pytest.raises(InputError):
            rows([changed(ttft_slo_s=0.0349)], cap=0.5)
        with pytest.raises(InputError):
            rows([hasty])

    def test_routes_that_are_ruled_out(self):
        usable = np.array([[True, False], [True, True]])
        problem = rows([CHAT, self.OTHER], configurations=[ONE, TWO], targets=[0.02, 0.05], usable=usable)
        assert problem.allowed.tolist() == [[True, True, False, False], [True] * 4]
        assert not problem.load[0, 2:].any()


FREE = {"unmet_cap": 1.0}  # a type that may stay unmet raises no complaint


@pytest.mark.parametrize(
    ("limits", "targets", "allowed"),
    [
        ({}, [0.02, 0.05], [0.02, 0.05]),
        ({"tpot_slo_s": 0.03}, [0.02, 0.05], [0.02]),
        ({"tpot_slo_s": 0.05}, [0.05], [0.05]),
        ({"tpot_slo_s": 0.0499}, [0.05], []),
        ({}, [0.01, 0.0101, 0.05], [0.0101, 0.05]),  # the base alone takes 10 ms
        ({}, [0.009], []),
        ({"ttft_slo_s": 0.084}, [0.02, 0.05], [0.02]),  # 1.5 x 50 ms + 10 ms of prefill is one millisecond too much
        ({"ttft_slo_s": 0.086}, [0.02, 0.05], [0.02, 0.05]),
        ({"ttft_slo_s": 0.03}, [0.02, 0.05], []),
        ({"input_tokens": 7950.0}, [0.05], [0.05]),
        ({"input_tokens": 7951.0}, [0.05], []),  # prompt and answer exceed the cache
    ],
)
def test_which_points_a_type_may_use(limits, targets, allowed):
    """A second type keeps every point in the problem, so that the mask of the first is seen."""
    anything = changed(name="other", tpot_slo_s=1.0, **FREE)
    problem = rows([changed(**FREE, **limits), anything], targets=targets)
    points = [c.tpot_target_s for c in problem.configurations]
    assert [point for point, ok in zip(points, problem.allowed[0], strict=True) if ok] == allowed
    ruled_out = ~problem.allowed[0]
    assert not problem.load[0, ruled_out].any()
    assert not problem.kv[0, ruled_out].any()
    assert np.isfinite(problem.delay_s).all()


def test_points_that_no_type_may_use_are_left_out():
    problem = rows(configurations=[ONE, TWO], targets=[0.008, 0.05, 0.06])
    assert [(c.tensor_parallel, c.tpot_target_s) for c in problem.configurations] == [(1, 0.05), (2, 0.008), (2, 0.05)]
    assert problem.allowed.all()
    assert problem.error.shape == problem.load.shape == (1, 3)


def test_weights_that_do_not_fit_are_no_point():
    large = catalog(model=replace(MODEL, weights_gb=18.1))
    problem = rows(configurations=[ONE, TWO], catalog=large)
    assert [c.tensor_parallel for c in problem.configurations] == [2]


def test_each_type_that_must_be_served_and_cannot_is_named():
    hasty = changed(name="hasty", tpot_slo_s=0.009)
    eager = changed(name="eager", ttft_slo_s=0.05)
    patient = changed(name="patient")
    free = changed(name="free", tpot_slo_s=0.001, **FREE)
    with pytest.raises(InputError) as caught:
        rows([hasty, eager, patient, free])
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith(
        "query type 'hasty': no configuration answers within tpot_slo_s = 0.009 s"
    )
    assert "'eager'" in caught.value.problems[1]
    assert "ttft_slo_s = 0.05 s" in caught.value.problems[1]
    assert "0.0100 s per token" in caught.value.problems[0]


def test_a_problem_in_which_nothing_can_be_served_and_nothing_must_be():
    problem = rows([changed(tpot_slo_s=0.001, **FREE)])
    assert problem.configurations == ()
    assert problem.delay_s.shape == (1, 0)
