"""The paper's world by hand: slots, a two-phase delay, a KV cache that is reserved in full."""

from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER, RequestBook
from simulator.replica.static import StaticReplica
from tests.engine_bench import column, outcomes, plan, run, static


def serve(rows, spec):
    return run(rows, [plan({"a": 1})], spec)


def replica(requests, spec):
    book = RequestBook()
    book.extend([h for h, _ in requests], [f for _, f in requests])
    return StaticReplica(0, spec, book), book


def test_delay_has_two_phases():
    result = serve([(100, 4, 3)], static(prefill=5, decode=7))
    assert column(result, "start_tick") == [100]
    assert column(result, "first_token_tick") == [100 + 4 * 5 + 7]
    assert column(result, "finish_tick") == [100 + 4 * 5 + 3 * 7]


def test_requests_wait_for_a_slot_in_order_of_arrival():
    result = serve([(0, 0, 10), (0, 0, 4), (1, 0, 5), (2, 0, 1)], static(slots=2))
    assert column(result, "start_tick") == [0, 0, 4, 9]
    assert column(result, "finish_tick") == [10, 4, 9, 10]


def test_blocked_head_blocks_the_queue():
    result = serve([(0, 4, 4), (1, 3, 3), (2, 1, 0)], static(kv=10, slots=None))
    # The third would fit beside the first, but not before the second.
    assert column(result, "start_tick") == [0, 4, 4]
    assert (result.rentals[0].kv_peak_tokens, result.rentals[0].steps) == (8, 4)  # at 0, at 4 twice, at 7


def test_boundaries_are_where_something_starts_or_finishes():
    result = serve([(0, 0, 10), (3, 0, 2), (50, 0, 1)], static(slots=2))
    assert result.rentals[0].steps == 6  # 0, 3, 5, 10, 50, 51
    assert result.events == 3 + 6


def test_all_tokens_have_to_fit():
    result = serve([(0, 8, 2), (0, 8, 3), (0, 0, 0)], static(kv=10))
    assert outcomes(result) == [Outcome.SERVED, Outcome.REJECTED_TOO_LARGE, Outcome.SERVED]


def test_requests_of_no_tokens_take_no_time():
    result = serve([(5, 0, 0), (5, 3, 0), (5, 0, 1)], static(prefill=0, decode=2))
    assert column(result, "start_tick") == [5, 5, 5]
    assert column(result, "finish_tick") == [5, 5, 7]
    assert column(result, "first_token_tick") == [NEVER, NEVER, 7]


def test_world_of_no_delay_serves_its_queue_at_once():
    result = serve([(5, 1, 1)] * 4, static(slots=1, decode=0))
    assert column(result, "finish_tick") == [5] * 4


def test_interrupted_request_starts_over_and_loses_a_token_that_it_did_not_have():
    old, book = replica([(1, 6), (1, 6)], static(slots=2, prefill=10, decode=10))
    old.enqueue(0, 0)
    old.boundary(0)
    old.enqueue(1, 10)
    old.boundary(10)
    assert book.first_token_tick == [20, 30]
    assert old.evict(25) == [0, 1]
    assert book.first_token_tick == [20, NEVER]
    assert (old.held, old.outstanding_tokens, old.next_tick) == (0, 0, None)
    new = StaticReplica(1, static(slots=2, prefill=10, decode=10), book)
    for request in (0, 1):
        new.enqueue(request, 100)
    new.boundary(100)
    assert new.boundary(170) == [0, 1]
    assert book.start_tick == [0, 10]
    assert book.first_token_tick == [20, 120]
    assert book.finish_tick == [170, 170]


def test_eviction_is_in_order_of_admission_then_of_arrival():
    subject, _ = replica([(0, 9), (0, 5), (0, 1)], static(slots=2))
    for request in range(3):
        subject.enqueue(request, 0)
    subject.boundary(0)
    assert subject.evict(1) == [0, 1, 2]


def test_finished_requests_are_in_order_of_finish_then_of_number():
    subject, _ = replica([(0, 4), (0, 4), (0, 3)], static(slots=3))
    for request in (1, 0, 2):
        subject.enqueue(request, 0)
    subject.boundary(0)
    assert subject.boundary(4) == [2, 0, 1]


def test_answer_that_would_end_after_all_time_has_its_first_token():
    """10^8 tokens of 2^36 ticks: the last is beyond 64 bits, the first is not."""
    result = run([(0, 0, 10**8)], [plan({"a": 1})], static(decode=2**36), grace=2**40)
    assert outcomes(result) == [Outcome.IN_FLIGHT]
    assert column(result, "first_token_tick") == [2**36]


def test_first_token_that_would_come_after_all_time_never_comes():
    result = run([(0, 10**8, 1)], [plan({"a": 1})], static(prefill=2**40), grace=1)
    assert outcomes(result) == [Outcome.IN_FLIGHT]
    assert column(result, "first_token_tick") == [NEVER]
