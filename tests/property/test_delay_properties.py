"""What every step cost and every delay must obey, whatever the model, the tier and the parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.catalog import kv_capacity_tokens, load_catalog
from simulator.delay import ConstantDelay, StepCost

CATALOG = load_catalog()

models = st.sampled_from(list(CATALOG.models.values()))
tiers = st.sampled_from(list(CATALOG.tiers.values()))
degrees = st.sampled_from([1, 2, 4, 8])
tokens = st.integers(0, 200_000)
sequences = st.integers(0, 512)
shares = st.floats(0.01, 1)
constants = st.builds(ConstantDelay, mfu=shares, mbu=shares, batch=st.floats(1, 512))


@given(constants, models, tiers, degrees, degrees, tokens, sequences, tokens)
def test_step_is_positive_and_affine(constant, model, tier, n, m, prefill, batch, context):
    cost = constant.step_cost(model, tier, n, m)
    base = cost.step_s(0, 0, 0)
    assert base == cost.base_s > 0
    full = cost.step_s(prefill, batch, context)
    parts = cost.step_s(prefill, 0, 0) + cost.step_s(0, batch, 0) + cost.step_s(0, 0, context)
    assert full >= base
    assert full == pytest.approx(parts - 2 * base, rel=1e-9)
    assert cost.step_s(2 * prefill, 2 * batch, 2 * context) - base == pytest.approx(2 * (full - base), rel=1e-9)


@given(constants, models, tiers, degrees, degrees, tokens, sequences, tokens)
def test_more_tp_is_never_slower_and_more_pp_never_faster(constant, model, tier, n, m, prefill, batch, context):
    step = constant.step_cost(model, tier, n, m).step_s(prefill, batch, context)
    assert constant.step_cost(model, tier, 2 * n, m).step_s(prefill, batch, context) <= step
    assert constant.step_cost(model, tier, n, 2 * m).step_s(prefill, batch, context) >= step
    delay = constant.request_delay(model, tier, n, m).delay_s(prefill, batch)
    assert constant.request_delay(model, tier, 2 * n, m).delay_s(prefill, batch) <= delay
    assert constant.request_delay(model, tier, n, 2 * m).delay_s(prefill, batch) >= delay


@given(constants, models, tiers, degrees, degrees)
def test_planner_and_engine_speak_of_the_same_gpu(constant, model, tier, n, m):
    # A step of `batch` sequences without context takes between the request's time per token and twice that.
    delay = constant.request_delay(model, tier, n, m)
    cost = constant.step_cost(model, tier, n, m)
    step_s = cost.step_s(0, constant.batch, 0)
    assert delay.decode_s_per_token * (1 - 1e-9) <= step_s <= 2 * delay.decode_s_per_token
    assert cost.prefill_s_per_token == delay.prefill_s_per_token


@given(models, tiers, degrees, degrees, st.floats(0.1, 3), tokens, sequences, tokens)
def test_a_slower_world_is_slower_by_its_factor(model, tier, n, m, factor, prefill, batch, context):
    cost = ConstantDelay().step_cost(model, tier, n, m)
    assert cost.scaled(factor).step_s(prefill, batch, context) == pytest.approx(
        factor * cost.step_s(prefill, batch, context), rel=1e-12
    )


COEFFICIENT = st.floats(0, 1)


@given(st.tuples(COEFFICIENT, COEFFICIENT, COEFFICIENT, COEFFICIENT), tokens, sequences, tokens)
def test_ticks_of_a_step_are_off_by_half_a_tick_per_unit(coefficients, prefill, batch, context):
    names = ("base_s", "prefill_s_per_token", "decode_s_per_sequence", "context_s_per_token")
    cost = StepCost(**dict(zip(names, coefficients, strict=True)))
    step = cost.ticks().step(prefill, batch, context)
    exact = cost.step_s(prefill, batch, context)
    assert isinstance(step, int)
    assert abs(step / 2**40 - exact) <= (1 + prefill + batch + context) * 2.0**-41 + 1e-12 * exact


@given(models, tiers, degrees, degrees)
def test_kv_capacity_fills_the_memory_and_grows_with_gpus(model, tier, n, m):
    capacity = kv_capacity_tokens(model, tier, n, m)
    used_gb = model.weights_gb * tier.weight_factor + capacity * model.kv_bytes_per_token / 1e9
    room_gb = n * m * tier.memory_gb * 0.9
    if capacity:
        assert used_gb <= room_gb < used_gb + 1.001 * model.kv_bytes_per_token / 1e9
    assert capacity >= 0
    assert kv_capacity_tokens(model, tier, 2 * n, m) >= 2 * capacity
