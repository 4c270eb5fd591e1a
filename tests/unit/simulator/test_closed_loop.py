"""Closed loops: nobody is lost, a schedule tells what a run does, and the three ways to admit."""

import numpy as np
import pytest

from simulator.delay.port import StepTicks
from simulator.errors import InputError
from simulator.replica.batching import BATCHING
from simulator.replica.closed_loop import one_prompt_a_step, schedule, serve, waves
from simulator.replica.port import ReplicaSpec
from simulator.ticks import TICKS_PER_S

STEP = StepTicks(base=10**9, prefill_per_token=10**6, decode_per_sequence=10**7, context_per_token=1000)


def spec(admission=None, kv=10**6, budget=2048):
    return ReplicaSpec(
        discipline=BATCHING,
        step=STEP,
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=kv,
        token_budget=budget,
        admission=admission,
    )


def lengths(requests, input_tokens=700, output_tokens=50):
    return {"input_tokens": np.full(requests, input_tokens), "output_tokens": np.full(requests, output_tokens)}


def test_one_client_by_hand():
    served = serve(spec(), clients=1, **lengths(3))
    prefill = (STEP.base + 700 * STEP.prefill_per_token) / TICKS_PER_S
    assert served.ttft_s == pytest.approx([prefill] * 3)
    decode = [STEP.base + STEP.decode_per_sequence + STEP.context_per_token * (700 + k) for k in range(1, 50)]
    assert served.tpot_s == pytest.approx([sum(decode) / 49 / TICKS_PER_S] * 3)
    assert served.sent_s.tolist() == [0.0, served.finish_s[0], served.finish_s[1]]


@pytest.mark.parametrize("admission", [lambda: None, lambda: one_prompt_a_step(2048), waves])
@pytest.mark.parametrize("kv", [2000, 10**6])
def test_a_schedule_prices_what_a_run_takes(admission, kv):
    draws = np.random.default_rng(1)
    asked = {"input_tokens": draws.integers(1, 1500, 60), "output_tokens": draws.integers(1, 90, 60)}
    served = serve(spec(admission(), kv), clients=8, **asked)
    found = schedule(spec(admission(), kv), clients=8, **asked)
    assert served.steps == len(found.sequences)
    ticks = [STEP.step(*step) for step in zip(found.prompt_tokens, found.sequences, found.context_tokens, strict=True)]
    clock = np.concatenate([[0], np.cumsum(ticks)]) / TICKS_PER_S
    for name, steps in (("sent_s", "sent"), ("first_token_s", "first_token"), ("finish_s", "finish")):
        assert clock[getattr(found, steps)].tolist() == getattr(served, name).tolist()
    assert (served.ttft_s > 0).all()
    if served.preemptions == 0:
        assert found.prompt_tokens.sum() == asked["input_tokens"].sum()
        assert found.sequences.sum() == (asked["output_tokens"] - 1).sum()


def test_at_most_the_clients_are_in_flight():
    served = serve(spec(), clients=5, **lengths(40))
    events = sorted([(t, 0) for t in served.finish_s] + [(t, 1) for t in served.sent_s])
    flight = np.cumsum([1 if sent else -1 for _, sent in events])
    assert flight.max() == 5
    assert flight[-1] == 0


def test_one_prompt_a_step():
    found = schedule(spec(one_prompt_a_step(2048)), clients=6, **lengths(6))
    assert found.prompt_tokens[:7].tolist() == [700] * 6 + [0]
    together = schedule(spec(), clients=6, **lengths(6))
    assert together.prompt_tokens[0] == 2048


def test_waves_are_in_lock_step():
    found = schedule(spec(waves(), budget=10_000), clients=4, **lengths(12))
    assert found.prompt_tokens[found.prompt_tokens > 0].tolist() == [2800] * 3
    assert len(set(found.finish.tolist())) == 3


def test_a_request_beyond_the_cache_is_refused():
    with pytest.raises(InputError, match="749 tokens exceeds the KV cache of 700"):
        serve(spec(kv=700), clients=2, **lengths(4))
