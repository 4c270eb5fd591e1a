"""The log of tiny runs, written down by hand: each step of a replica, each turn in the life of a request.

Both engines give it, the compiled one in fewer and longer segments.
"""

from unittest.mock import patch

import numpy as np
import pytest

from simulator.engine import ENGINES
from simulator.replica.tokenlog import BETWEEN_STEPS, EVENT_COLUMNS, SEGMENT_COLUMNS, LifeEvent, TokenLog
from tests.engine_bench import Bench, agreed, batching, fail_at, offer, plan, single_steps, static

A = plan({"a": 1})
QUEUED, ADMITTED, DECODING, PREEMPTED, EVICTED, FINISHED = LifeEvent


def log_of(rows, spec, **kwargs):
    return agreed(rows, [A], spec, token_log=True, **kwargs).log


def lives(log):
    """Request, kind, tick, replica, step, tokens."""
    return [(request, LifeEvent(kind), *rest) for request, kind, *rest in log.events.tolist()]


def test_steps_and_events_of_a_prompt_in_chunks():
    log = log_of([(0, 20, 3), (5, 3, 1)], batching(budget=8, base=10, prefill=1, decode=2))
    # Replica, step, start, ticks, sequences, prefill tokens.
    assert single_steps(log).T.tolist() == [
        [0, 0, 0, 18, 0, 8],
        [0, 1, 18, 18, 0, 8],
        [0, 2, 36, 17, 0, 4 + 3],
        [0, 3, 53, 12, 1, 0],
        [0, 4, 65, 12, 1, 0],
    ]
    assert lives(log) == [
        (0, QUEUED, 0, 0, BETWEEN_STEPS, 0),
        (0, ADMITTED, 0, 0, 0, 8),
        (1, QUEUED, 5, 0, BETWEEN_STEPS, 0),
        (1, ADMITTED, 36, 0, 2, 3),
        (0, DECODING, 53, 0, 3, 20),
        (1, DECODING, 53, 0, 3, 3),
        (1, FINISHED, 53, 0, 3, 1),
        (0, FINISHED, 77, 0, 5, 3),
    ]


def test_steps_grow_with_the_context():
    log = log_of([(100, 4, 4)], batching(base=10, prefill=3, decode=5, context=2))
    assert single_steps(log).T.tolist() == [
        [0, 0, 100, 22, 0, 4],
        [0, 1, 122, 10 + 5 + 2 * 5, 1, 0],
        [0, 2, 147, 10 + 5 + 2 * 6, 1, 0],
        [0, 3, 174, 10 + 5 + 2 * 7, 1, 0],
    ]


def test_preempted_request_starts_again_with_its_tokens_as_prompt():
    log = log_of([(0, 4, 4), (0, 4, 4)], batching(kv=10))
    assert [(kind, tick, step, tokens) for request, kind, tick, _, step, tokens in lives(log) if request == 1] == [
        (QUEUED, 0, BETWEEN_STEPS, 0),
        (ADMITTED, 0, 0, 4),
        (DECODING, 10, 1, 4),
        (PREEMPTED, 20, 2, 2),
        (ADMITTED, 40, 4, 4 + 2),
        (DECODING, 50, 5, 6),
        (FINISHED, 60, 6, 4),
    ]
    assert single_steps(log)[4].tolist() == [0, 2, 1, 1, 0, 1]  # sequences that decode


@pytest.mark.parametrize("discipline", ["batching", "static"])
def test_failure_evicts_and_queues_elsewhere(monkeypatch, discipline):
    reality = fail_at(monkeypatch, {0: 25})
    spec = batching(prefill=1) if discipline == "batching" else static(prefill=1, decode=10)
    log = log_of([(0, 4, 5)], offer(spec, startup=20), reality=reality, horizon=100)
    if discipline == "static":  # it starts over
        expected = [(ADMITTED, 0, 0, 1, 4), (EVICTED, 25, 0, 1, 0), (ADMITTED, 45, 1, 1, 4), (FINISHED, 99, 1, 2, 5)]
    else:  # tokens at 14 and 24; the step from 24 on is not complete
        expected = [
            (ADMITTED, 0, 0, 0, 4),
            (DECODING, 14, 0, 1, 4),
            (EVICTED, 25, 0, 2, 2),
            (ADMITTED, 45, 1, 0, 4 + 2),
            (DECODING, 61, 1, 1, 6),
            (FINISHED, 81, 1, 3, 5),
        ]
        assert single_steps(log)[:4].T.tolist() == [
            [0, 0, 0, 14],
            [0, 1, 14, 10],
            [1, 0, 45, 16],
            [1, 1, 61, 10],
            [1, 2, 71, 10],
        ]
    rest = [tuple(life[1:]) for life in lives(log) if life[1] is not QUEUED]
    assert rest == expected
    assert [(tick, replica) for _, kind, tick, replica, _, _ in lives(log) if kind is QUEUED] == [(0, 0), (45, 1)]


def test_static_world_has_events_but_no_steps():
    log = log_of([(0, 4, 4), (1, 3, 3), (2, 1, 0)], static(kv=10, slots=None))
    assert log.segments.shape == (0, len(SEGMENT_COLUMNS))
    assert [life[:3] for life in lives(log)] == [
        (0, QUEUED, 0),
        (0, ADMITTED, 0),
        (1, QUEUED, 1),
        (2, QUEUED, 2),
        (0, FINISHED, 4),
        (1, ADMITTED, 4),
        (2, ADMITTED, 4),
        (2, FINISHED, 4),
        (1, FINISHED, 7),
    ]


def test_requests_that_are_rejected_leave_no_trace():
    log = log_of([(0, 50, 1), (3, 1, 1)], batching(kv=10))
    assert {life[0] for life in lives(log)} == {1}


def test_step_that_is_cut_by_the_end_is_not_in_the_log():
    log = log_of([(0, 1, 9)], batching(), grace=34)  # the run ends at 35
    assert single_steps(log)[1].tolist() == [0, 1, 2]
    assert [kind for _, kind, *_ in lives(log)] == [QUEUED, ADMITTED, DECODING]


def test_log_has_room_for_the_last_steps_of_every_replica():
    """At the end of a run each replica is in the middle of a row of steps, and the buffers are full."""
    with patch("simulator.engine.kernel_memory.FIRST_LOG", 1):
        log = agreed([(i, 1, 20) for i in range(10)], [plan({"a": 5})], batching(), grace=50, token_log=True).log
    assert set(log.segments[:, 0]) == set(range(5))


@pytest.mark.parametrize("engine", ENGINES)
def test_log_is_kept_only_where_it_is_asked_for(engine):
    assert Bench([(0, 1, 1)], [A], batching(), engine=engine).run().log is None
    log = Bench([], [A], batching(), engine=engine, token_log=True).run().log
    assert log.segments.shape == (0, len(SEGMENT_COLUMNS))
    assert log.events.shape == (0, len(EVENT_COLUMNS))
    log = Bench([(0, 1, 1)], [A], batching(), engine=engine, token_log=True).run().log
    assert (log.segments.dtype, log.events.dtype) == (np.int64, np.int64)


def test_compiled_engine_writes_rows_of_equal_steps_as_one():
    logs = {
        engine: Bench([(0, 4, 1001)], [A], batching(context=1), engine=engine, token_log=True).run().log
        for engine in ENGINES
    }
    assert len(logs["reference"].segments) == 1001
    assert len(logs["compiled"].segments) == 2
    assert logs["compiled"].segments[1].tolist() == [0, 1, 10, 1000, 10 + 5, 1, 1, 0]


def test_rows_are_put_in_order():
    segments = np.array([[1, 0, 5, 1, 1, 0, 1, 0], [0, 2, 9, 1, 1, 0, 1, 0], [0, 0, 0, 2, 1, 0, 1, 0]])
    events = np.array(
        [[7, ADMITTED, 3, 0, 0, 0], [7, QUEUED, 2, 0, 0, 0], [1, DECODING, 3, 0, 0, 0], [1, FINISHED, 3, 0, 0, 0]]
    )
    log = TokenLog.ordered(segments, events)
    assert log.segments[:, :2].tolist() == [[0, 0], [0, 2], [1, 0]]
    assert log.events[:, :2].tolist() == [[7, QUEUED], [1, DECODING], [1, FINISHED], [7, ADMITTED]]
