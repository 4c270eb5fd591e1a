"""The roofline form by hand, its linearisation, what engines add, and where constants come from."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.catalog import Communication, Evidence, RooflineConstants, load_catalog
from simulator.delay import DELAY_MODELS, RooflineDelay
from simulator.delay.roofline import BARE, HINGE_BYTES, Load, Shape, parts
from simulator.errors import InputError

CATALOG = load_catalog()
MODEL = CATALOG.models["llama-3.1-8b"]
H100 = CATALOG.tiers["h100-80-fp16"]
LINK = Communication(
    latency_s=1e-6, gb_per_s=100.0, prompt_latency_s=1e-5, prompt_gb_per_s=100.0, prompt_large_gb_per_s=50.0
)
PLAIN = RooflineConstants(
    compute_share=0.5,
    bandwidth_share=0.8,
    sharpness=50.0,  # nearly the larger of the two
    activation_passes=0.0,
    attention_compute_share=0.5,
    attention_bandwidth_share=0.5,
    step_s=0.0,
    layer_s=0.0,
    sequence_layer_s=0.0,
    prompt_layer_s=0.0,
    communication={2: LINK, 8: replace(LINK, latency_s=3e-6)},
)


def decode(sequences, context_tokens=0):
    return Load(prompt_tokens=0, prompt_pairs=0, prompts=0, sequences=sequences, context_tokens=context_tokens)


def prompt(tokens):
    return Load(prompt_tokens=tokens, prompt_pairs=tokens**2 / 2, prompts=1, sequences=0, context_tokens=0)


def test_one_sequence_reads_the_weights():
    found = parts(PLAIN, Shape.of(MODEL, H100, 1, 1), decode(1))
    assert found.matrices_s == pytest.approx(2 * MODEL.layer_parameters_b * 1e9 / (0.8 * 3350e9))
    assert found.head_s == pytest.approx(2 * MODEL.head_parameters_b * 1e9 / (0.8 * 3350e9))
    assert (found.attention_s, found.all_reduce_s, found.floor_s) == (0, 0, 0)


def test_a_long_prompt_computes():
    found = parts(PLAIN, Shape.of(MODEL, H100, 1, 1), prompt(8192))
    assert found.matrices_s == pytest.approx(2 * MODEL.layer_parameters_b * 1e9 * 8192 / (0.5 * 989e12), rel=1e-6)
    assert found.attention_s == pytest.approx(4 * 8192**2 / 2 * 4096 * 32 / (0.5 * 989e12))


def test_the_cache_is_read_by_the_context():
    found = parts(PLAIN, Shape.of(MODEL, H100, 2, 1), decode(4, 100_000))
    assert found.attention_s == pytest.approx(100_000 * MODEL.kv_bytes_per_token / (2 * 0.5 * 3350e9))
    many = Shape.of(MODEL, H100, 16, 1)  # more GPUs than KV heads: each head is kept twice
    assert parts(PLAIN, many, decode(4, 100_000)).attention_s == pytest.approx(found.attention_s / 8 * 2)


def test_all_reduces_by_hand():
    message = 64 * 4096 * 2
    two = parts(PLAIN, Shape.of(MODEL, H100, 2, 1), decode(64)).all_reduce_s
    assert two == pytest.approx(2 * 32 * (1e-6 + message / 100e9))
    four = parts(PLAIN, Shape.of(MODEL, H100, 4, 1), decode(64)).all_reduce_s
    assert four == pytest.approx(2 * 32 * (2e-6 + 1.5 * message / 100e9))  # latency between those of 2 and 8
    eight = parts(PLAIN, Shape.of(MODEL, H100, 8, 1), decode(64)).all_reduce_s
    sixteen = parts(PLAIN, Shape.of(MODEL, H100, 16, 1), decode(64)).all_reduce_s
    assert sixteen == pytest.approx(eight + 2 * 32 * (1.875 - 1.75) * message / 100e9)  # constants are held beyond 8


def test_large_messages_have_their_own_bandwidth():
    tokens = 3 * HINGE_BYTES // (4096 * 2)
    found = parts(PLAIN, Shape.of(MODEL, H100, 2, 1), prompt(tokens)).all_reduce_s
    assert found == pytest.approx(2 * 32 * (HINGE_BYTES / 100e9 + 2 * HINGE_BYTES / 50e9), rel=1e-3)


def test_a_short_prompt_takes_the_floor():
    slow = replace(PLAIN, prompt_layer_s=1e-3)
    assert parts(slow, Shape.of(MODEL, H100, 1, 1), prompt(16)).step_s == pytest.approx(0.032, rel=0.01)
    assert parts(slow, Shape.of(MODEL, H100, 1, 1), decode(16)).step_s < 0.01


def test_arrays_give_what_single_steps_give():
    shape = Shape.of(MODEL, H100, 4, 1)
    sizes = np.array([1, 7, 300])
    together = parts(PLAIN, shape, decode(sizes, 100 * sizes)).step_s
    assert together.tolist() == [float(parts(PLAIN, shape, decode(n, 100 * n)).step_s) for n in sizes]


@pytest.mark.parametrize("name", [name for name in DELAY_MODELS if name != "constant"])
@pytest.mark.parametrize("n", [1, 2, 8])
def test_the_affine_step_goes_through_its_reference_steps(name, n):
    delay = DELAY_MODELS[name](CATALOG)
    cost = delay.step_cost(MODEL, H100, n, 1)
    for load in (decode(1, 1000), decode(delay.sequences, 50_000), prompt(delay.prompt_tokens)):
        affine = cost.step_s(load.prompt_tokens, load.sequences, load.context_tokens)
        assert affine == pytest.approx(delay.step_s(MODEL, H100, n, 1, load), rel=1e-9)
    for size in (4, 16, 32, 128):
        affine = cost.step_s(0, size, 1000 * size)
        assert affine == pytest.approx(delay.step_s(MODEL, H100, n, 1, decode(size, 1000 * size)), rel=0.1)


@pytest.mark.parametrize("tier", CATALOG.tiers.values(), ids=lambda tier: tier.name)
def test_every_tier_answers_with_positive_times(tier):
    delay = DELAY_MODELS["roofline"](CATALOG)
    for n, m in ((1, 1), (2, 1), (8, 4)):
        cost = delay.step_cost(MODEL, tier, n, m)
        assert min(cost.base_s, cost.prefill_s_per_token, cost.decode_s_per_sequence, cost.context_s_per_token) > 0
        request = delay.request_delay(MODEL, tier, n, m)
        assert min(request.prefill_s_per_token, request.decode_s_per_token) > 0
        cost.ticks()


def test_stages_add_their_hops():
    delay = DELAY_MODELS["roofline"](CATALOG)
    one, four = (delay.step_cost(MODEL, H100, 1, m).base_s for m in (1, 4))
    assert four - one == pytest.approx(3 * H100.hop_s)


def test_an_engine_adds_to_composed_constants_only():
    calibration = H100.calibration
    measured = replace(calibration, source=replace(calibration.source, kind="measured"))
    engine = replace(CATALOG.engines["vllm"], step_s=0.01)
    with_engine = RooflineDelay(engine=engine).step_s(MODEL, H100, 1, 1, decode(1))
    bare = RooflineDelay(engine=BARE).step_s(MODEL, H100, 1, 1, decode(1))
    assert with_engine > bare + 0.009
    tier = replace(H100, calibration=measured)
    assert RooflineDelay(engine=engine).step_s(MODEL, tier, 1, 1, decode(1)) == bare


def test_a_cache_at_8_bit_is_read_in_half_the_time():
    tier = CATALOG.tiers["h100-80-fp8"]
    engine = replace(BARE, fp8_kv_cache=True)
    wide, narrow = (RooflineDelay(engine=e).step_cost(MODEL, tier, 1, 1).context_s_per_token for e in (BARE, engine))
    assert narrow == pytest.approx(wide / 2)
    assert RooflineDelay(engine=engine).step_cost(MODEL, H100, 1, 1) == RooflineDelay().step_cost(MODEL, H100, 1, 1)


def test_a_tier_without_calibration_is_refused():
    with pytest.raises(InputError, match="h100-80-fp16' has no calibration"):
        RooflineDelay().step_cost(MODEL, replace(H100, calibration=None), 1, 1)


def test_uncalibrated_tiers_take_the_nearest_and_say_so():
    found = CATALOG.tiers["h200-141-fp8"].calibration
    assert (found.evidence, found.basis, found.tier) == (Evidence.EXTRAPOLATED, "h100-80-fp8", "h200-141-fp8")
    assert found.constants == CATALOG.tiers["h100-80-fp8"].calibration.constants  # links of the same speed
    faster = CATALOG.tiers["b200-180-fp8"].calibration.constants.communication[8]
    basis = CATALOG.tiers["h100-80-fp8"].calibration.constants.communication[8]
    assert (faster.gb_per_s, faster.latency_s) == (2 * basis.gb_per_s, basis.latency_s)
    assert found.label.startswith("extrapolated from h100-80-fp8, prefill ")
    assert H100.calibration.label.startswith("composed, prefill ")
    # PCIe tiers take constants of PCIe tiers: communication does not carry over.
    for tier in CATALOG.tiers.values():
        basis = tier.calibration.basis
        assert basis is None or CATALOG.tiers[basis].interconnect is tier.interconnect
