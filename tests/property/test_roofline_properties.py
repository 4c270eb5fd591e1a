"""What any step time must obey, for every tier, model and degree."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from simulator.catalog import load_catalog
from simulator.delay import DELAY_MODELS
from simulator.delay.roofline import Load

CATALOG = load_catalog()
DELAYS = {name: make(CATALOG) for name, make in DELAY_MODELS.items() if name != "constant"}

delays = st.sampled_from(list(DELAYS.values()))
tiers = st.sampled_from(list(CATALOG.tiers.values()))
models = st.sampled_from(list(CATALOG.models.values()))
degrees = st.sampled_from([1, 2, 3, 4, 8, 16])
counts = st.integers(0, 2000)


def load(prompt_tokens, sequences, context_tokens):
    return Load(
        prompt_tokens=prompt_tokens,
        prompt_pairs=prompt_tokens**2 / 2,
        prompts=min(1, prompt_tokens),
        sequences=sequences,
        context_tokens=context_tokens,
    )


@given(delays, tiers, models, degrees, counts, counts, counts, counts, counts, counts)
def test_more_work_takes_no_less_time(delay, tier, model, n, prompt, more_prompt, batch, more, context, further):
    prompt += 1  # a step without prompts sends by other kernels
    less = delay.step_s(model, tier, n, 1, load(prompt, batch, context))
    assert less > 0
    greater = delay.step_s(model, tier, n, 1, load(prompt + more_prompt, batch + more, context + further))
    assert greater >= less * (1 - 1e-12)


@given(delays, tiers, models, degrees, counts, counts)
def test_the_affine_step_is_positive_and_grows(delay, tier, model, n, batch, context):
    cost = delay.step_cost(model, tier, n, 1)
    step = cost.step_s(0, 1, 0)
    assert 0 < step <= cost.step_s(100, 1 + batch, context)
    assert cost.ticks().base > 0


@given(delays, tiers, models, st.floats(1.01, 4.0))
def test_a_faster_gpu_is_no_slower(delay, tier, model, factor):
    faster = replace(
        tier,
        compute_tflops=factor * tier.compute_tflops,
        attention_tflops=factor * tier.attention_tflops,
        bandwidth_gb_s=factor * tier.bandwidth_gb_s,
    )
    for one in (load(0, 16, 10_000), load(2048, 0, 0)):
        assert delay.step_s(model, faster, 2, 1, one) <= delay.step_s(model, tier, 2, 1, one)
