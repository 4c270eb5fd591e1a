"""Continuous batching by hand: chunked prefill, preemption, requests of no tokens, what a failing replica gives up."""

from simulator.replica.batching import BatchingReplica
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER, RequestBook
from tests.engine_bench import batching, column, outcomes, plan, run


def serve(rows, spec):
    return run(rows, [plan({"a": 1})], spec)


def replica(requests, spec):
    book = RequestBook()
    book.extend([h for h, _ in requests], [f for _, f in requests])
    return BatchingReplica(0, spec, book), book


def test_step_time_counts_prefill_sequences_and_context():
    spec = batching(base=10, prefill=3, decode=5, context=2)
    result = serve([(100, 4, 3)], spec)
    assert column(result, "start_tick") == [100]
    assert column(result, "first_token_tick") == [100 + 10 + 3 * 4]
    # The first decode step writes the fifth entry of the cache and reads it.
    assert column(result, "finish_tick") == [122 + (10 + 5 + 2 * 5) + (10 + 5 + 2 * 6)]
    assert (result.rentals[0].steps, result.rentals[0].kv_peak_tokens) == (3, 6)


def test_long_prompt_is_prefilled_in_chunks_and_the_rest_of_the_last_chunk_goes_to_the_next_request():
    result = serve([(0, 20, 3), (5, 3, 1)], batching(budget=8, base=10, prefill=1, decode=2))
    # Chunks of 8, 8 and 4 + 3: steps end at 18, 36 and 53; then two steps of one sequence.
    assert column(result, "start_tick") == [0, 36]
    assert column(result, "first_token_tick") == [53, 53]
    assert column(result, "finish_tick") == [53 + 12 + 12, 53]


def test_decoding_sequences_come_before_prefill_in_the_budget():
    result = serve([(0, 1, 6), (5, 5, 1)], batching(budget=3, base=10, prefill=1, decode=2))
    # Steps: 1 prefill (to 11), 1 decode + 2 prefill (25), the same (39), 1 decode + 1 prefill (52), 1 decode.
    assert column(result, "first_token_tick") == [11, 52]
    assert column(result, "finish_tick") == [52 + 12 + 12, 52]


def test_prefill_waits_while_decoding_takes_the_whole_budget():
    rows = [(0, 1, 3), (0, 1, 3), (5, 1, 1)]
    assert column(serve(rows, batching(budget=2)), "start_tick") == [0, 0, 30]
    assert column(serve(rows, batching(budget=3)), "start_tick") == [0, 0, 10]


def test_latest_request_is_preempted_and_recomputed_when_the_cache_is_full():
    result = serve([(0, 4, 4), (0, 4, 4)], batching(kv=10))
    # At 20 both have two tokens and five entries, and the next step would need 12 of 10: the second gives way. Its 6
    # entries are free when the first finishes at 40; its prefill then gives the third token.
    assert column(result, "start_tick") == [0, 0]
    assert column(result, "first_token_tick") == [10, 10]
    assert column(result, "finish_tick") == [40, 60]
    assert column(result, "preemptions") == [0, 1]
    assert result.rentals[0].preemptions == 1
    assert result.rentals[0].kv_peak_tokens == 10


def test_preempted_request_stays_ahead_of_those_that_never_started():
    result = serve([(0, 4, 4), (0, 4, 4), (15, 0, 1)], batching(kv=10))
    assert column(result, "start_tick") == [0, 0, 40]
    assert column(result, "finish_tick") == [40, 60, 50]


def test_preempted_requests_come_back_in_order_of_admission():
    result = serve([(0, 2, 9), (0, 2, 3), (0, 2, 3)], batching(kv=10))
    # At 20 the three need 9 + 3 of 10: the third goes (prompt 4). At 30 the second finishes and the third comes back.
    assert column(result, "preemptions") == [0, 0, 1]
    assert column(result, "finish_tick") == [90, 30, 40]


def test_unfinished_prefill_is_preempted_first():
    result = serve([(0, 2, 9), (5, 6, 1)], batching(kv=10, budget=2))
    # The second reserves 6 entries at 10. At 30 the first needs its fifth entry: the second starts over at 90.
    assert column(result, "start_tick") == [0, 10]
    assert column(result, "preemptions") == [0, 1]
    assert column(result, "first_token_tick") == [10, 120]
    assert column(result, "finish_tick") == [90, 120]


def test_blocked_head_blocks_the_queue():
    result = serve([(0, 5, 4), (5, 6, 1), (5, 1, 1)], batching(kv=10))
    assert column(result, "start_tick") == [0, 40, 40]


def test_requests_of_no_tokens_take_a_step():
    result = serve([(0, 0, 0), (100, 0, 1), (200, 5, 0)], batching(kv=5, base=10, prefill=1))
    assert column(result, "finish_tick") == [10, 110, 215]
    assert column(result, "first_token_tick") == [NEVER, 110, NEVER]
    assert outcomes(result) == [Outcome.SERVED] * 3


def test_step_takes_a_tick_at_least():
    result = serve([(7, 3, 3)], batching(base=0))
    assert column(result, "first_token_tick") == [8]
    assert column(result, "finish_tick") == [10]


def test_request_that_could_never_fit_is_rejected_on_arrival():
    result = serve([(0, 8, 3), (0, 8, 4), (0, 10, 0), (0, 10, 1), (0, 11, 0)], batching(kv=10))
    # The last token of an answer is never written into the cache.
    too_large, served = Outcome.REJECTED_TOO_LARGE, Outcome.SERVED
    assert outcomes(result) == [served, too_large, served, served, too_large]
    assert column(result, "start_tick")[1] == column(result, "start_tick")[4] == NEVER
    assert column(result, "replica") == [0] * 5


def test_generated_tokens_go_with_a_request_to_another_replica():
    old, book = replica([(4, 5), (0, 1)], batching())
    old.enqueue(0, 0)
    assert old.boundary(0) == []
    assert old.boundary(10) == []
    assert old.boundary(20) == []
    assert old.evict(25) == [0]
    assert book.generated == [2, 0]
    assert (old.held, old.outstanding_tokens, old.next_tick) == (0, 0, None)
    new = BatchingReplica(1, batching(prefill=1), book)
    new.enqueue(0, 30)
    new.boundary(30)
    assert new.next_tick == 30 + 10 + 6  # prompt and both tokens are computed anew
    new.boundary(46)
    new.boundary(56)
    assert new.boundary(66) == [0]
    assert (book.first_token_tick[0], book.finish_tick[0]) == (10, 66)


def test_eviction_is_in_order_of_admission_then_of_arrival():
    subject, book = replica([(1, 1), (9, 1), (2, 5), (1, 9)], batching(budget=4))
    subject.enqueue(3, 0)
    subject.boundary(0)
    for request in (2, 1, 0):
        subject.enqueue(request, 5)
    subject.boundary(10)
    assert subject.evict(15) == [3, 2, 1, 0]  # in decode, in prefill, in chunked prefill, in the queue
    assert book.generated == [0, 0, 0, 1]


def test_finished_requests_are_in_order_of_their_step_then_of_their_number():
    subject, _ = replica([(0, 2), (0, 1), (0, 2)], batching())
    for request in (2, 0):
        subject.enqueue(request, 0)
    subject.boundary(0)
    subject.enqueue(1, 5)
    subject.boundary(10)
    assert subject.boundary(20) == [0, 2, 1]


def test_outstanding_tokens_are_those_of_unfinished_requests():
    subject, _ = replica([(3, 2), (4, 1)], batching())
    subject.enqueue(0, 0)
    subject.enqueue(1, 0)
    assert (subject.held, subject.outstanding_tokens) == (2, 10)
    subject.boundary(0)
    assert subject.boundary(10) == [1]
    assert (subject.held, subject.outstanding_tokens) == (1, 5)
