"""The `constant` delay model, by hand: each figure below can be checked with a pocket calculator."""

import numpy as np
import pytest

from simulator.catalog import load_catalog
from simulator.delay import DELAY_MODELS, ConstantDelay, SlowedDelay, StepCost, TwoPhaseDelay
from simulator.errors import InputError

CATALOG = load_catalog()
MODEL = CATALOG.models["llama-3.1-8b"]  # 8.03e9 parameters, 16.06 GB, 131,072 B per token
H100 = CATALOG.tiers["h100-80-fp16"]  # 989 TFLOP/s, 3350 GB/s, hops of 0.3 ms
L4 = CATALOG.tiers["l4-fp16"]  # 121 TFLOP/s, 300 GB/s, hops of 1.5 ms
CONSTANT = ConstantDelay()


def test_registry_makes_the_model():
    assert DELAY_MODELS["constant"](CATALOG) == CONSTANT


def test_request_delay_by_hand():
    delay = CONSTANT.request_delay(MODEL, H100, 1, 1)
    assert delay.prefill_s_per_token == pytest.approx(2 * 8.03e9 / (989e12 * 0.5))  # 32.5 us
    assert delay.decode_s_per_token == pytest.approx(16.06 / (3350 * 0.6))  # 8.0 ms: memory-bound
    split = CONSTANT.request_delay(MODEL, H100, 4, 2)
    assert split.prefill_s_per_token == pytest.approx(delay.prefill_s_per_token / 4)
    assert split.decode_s_per_token == pytest.approx(delay.decode_s_per_token / 4 + 0.3e-3)


def test_decode_is_bound_by_compute_at_a_large_batch():
    delay = ConstantDelay(batch=1000).request_delay(MODEL, H100, 1, 1)
    assert delay.decode_s_per_token == pytest.approx(1000 * delay.prefill_s_per_token)


def test_precision_scales_weights_and_compute_but_not_the_cache():
    half = CONSTANT.step_cost(MODEL, CATALOG.tiers["h100-80-fp8"], 1, 1)
    full = CONSTANT.step_cost(MODEL, H100, 1, 1)
    assert half.base_s == pytest.approx(full.base_s / 2)
    assert half.prefill_s_per_token == pytest.approx(full.prefill_s_per_token * 989 / 1979)
    assert half.context_s_per_token == full.context_s_per_token


def test_step_cost_by_hand():
    cost = CONSTANT.step_cost(MODEL, L4, 2, 3)
    assert cost.base_s == pytest.approx(16.06 / (2 * 300 * 0.6) + 2 * 1.5e-3)
    assert cost.prefill_s_per_token == cost.decode_s_per_sequence == pytest.approx(2 * 8.03e9 / (2 * 121e12 * 0.5))
    assert cost.context_s_per_token == pytest.approx(131_072e-9 / (2 * 300 * 0.6))


def test_pipeline_stages_add_hops_and_nothing_else():
    one, four = (CONSTANT.step_cost(MODEL, L4, 2, m) for m in (1, 4))
    assert four.base_s - one.base_s == pytest.approx(3 * 1.5e-3)
    assert (four.prefill_s_per_token, four.context_s_per_token) == (one.prefill_s_per_token, one.context_s_per_token)


def test_delay_of_a_request_and_of_many():
    delay = TwoPhaseDelay(prefill_s_per_token=0.001, decode_s_per_token=0.02)
    assert delay.delay_s(100, 10) == pytest.approx(0.3)
    many = delay.delay_s(np.array([100, 0], dtype=np.int32), np.array([10, 50], dtype=np.int32))
    assert many == pytest.approx([0.3, 1.0])


def test_work_is_what_a_request_adds_to_the_steps_that_it_is_in():
    """The prefill gives the first token; the decode steps after it read h + 1, h + 2, ... tokens."""
    cost = StepCost(base_s=0.5, prefill_s_per_token=1e-4, decode_s_per_sequence=2e-4, context_s_per_token=1e-7)
    inputs, outputs = np.array([100.0, 100.0, 100.0, 7.0]), np.array([4.0, 1.0, 0.0, 300.0])
    work_s = cost.work_s(inputs, outputs)
    assert work_s[:3] == pytest.approx([0.01 + 3 * 2e-4 + 1e-7 * (101 + 102 + 103), 0.01, 0.01])
    steps = [cost.step_s(0, 1, 7 + n) - cost.base_s for n in range(1, 300)]
    assert work_s[3] == pytest.approx(cost.step_s(7, 0, 0) - cost.base_s + sum(steps))


def test_step_is_affine_scales_and_rounds_to_ticks():
    cost = StepCost(base_s=0.5, prefill_s_per_token=0.25, decode_s_per_sequence=0.125, context_s_per_token=2.0**-41)
    assert cost.step_s(2, 4, 0) == 1.5
    assert cost.scaled(1.5).step_s(2, 4, 0) == 2.25
    ticks = cost.ticks()
    assert (ticks.base, ticks.prefill_per_token, ticks.decode_per_sequence) == (2**39, 2**38, 2**37)
    assert ticks.context_per_token == 0  # half a tick rounds to even
    assert ticks.step(2, 4, 1000) == 3 * 2**39


def test_ticks_of_real_coefficients_are_off_by_little():
    for tier in CATALOG.tiers.values():
        cost = CONSTANT.step_cost(CATALOG.models["llama-3.2-1b"], tier, 8, 1)
        assert cost.ticks().step(512, 32, 100_000) / 2**40 == pytest.approx(cost.step_s(512, 32, 100_000), rel=2e-4)


def test_a_step_longer_than_ticks_hold_is_refused():
    with pytest.raises(InputError, match="expected 0 to"):
        CONSTANT.step_cost(MODEL, H100, 1, 1).scaled(1e12).ticks()


def test_parameters_out_of_range_are_reported_together():
    with pytest.raises(InputError) as caught:
        ConstantDelay(mfu=0.0, mbu=1.2, batch=0)
    assert [problem.split(" is ")[0].split(": ")[1] for problem in caught.value.problems] == ["mfu", "mbu", "batch"]


def test_a_slowed_world_takes_so_many_times_as_long():
    slow = SlowedDelay(CONSTANT, 1.3)
    assert slow.request_delay(MODEL, H100, 2, 1).delay_s(900.0, 70.0) == pytest.approx(
        1.3 * CONSTANT.request_delay(MODEL, H100, 2, 1).delay_s(900.0, 70.0)
    )
    assert slow.step_cost(MODEL, H100, 2, 1).step_s(512, 9, 4000) == pytest.approx(
        1.3 * CONSTANT.step_cost(MODEL, H100, 2, 1).step_s(512, 9, 4000)
    )
