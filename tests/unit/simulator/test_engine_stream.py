"""Requests leave in batches while the run goes on: in order, of one size, without waiting for the end."""

from unittest.mock import patch

import numpy as np
import pytest

from simulator.engine import CHUNK_REQUESTS, ENGINES, Arrivals, EngineSettings, choose_engine
from simulator.engine.results import BATCH_REQUESTS, COLUMN_TYPES, RunResult, RunSummary
from simulator.errors import InputError
from simulator.fleet.reality import Reality
from simulator.replica.outcome import Outcome
from tests.engine_bench import Bench, Script, batching, offer, outcomes, plan, seconds, static, workload

A = plan({"a": 1})
each_engine = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def batches_of_four():
    with patch("simulator.engine.reference.BATCH_REQUESTS", 4), patch("simulator.engine.compiled.BATCH_REQUESTS", 4):
        yield


@each_engine
def test_batches_are_the_requests_in_order(engine, batches_of_four):
    rows = [(i * 7, i % 5, i % 4) for i in range(14)]
    story = Bench(rows, [A], batching(kv=40), engine=engine, chunk=3).story()
    whole = Bench(rows, [A], batching(kv=40), engine=engine).run()
    assert [batch.first_request for batch in story.batches] == [0, 4, 8, 12]
    assert [len(batch) for batch in story.batches] == [4, 4, 4, 2]
    for name, dtype in COLUMN_TYPES.items():
        joined = np.concatenate([getattr(batch, name) for batch in story.batches])
        assert joined.dtype == dtype
        assert joined.tolist() == getattr(whole.requests, name).tolist(), name
    for name in RunSummary.__dataclass_fields__:
        if name != "engine_cpu_s":
            assert getattr(story.summary, name) == getattr(whole, name), name


@each_engine
@pytest.mark.parametrize("size", [0, 1, 4, 8])
def test_last_batch_is_never_empty(engine, size, batches_of_four):
    story = Bench([(i, 1, 1) for i in range(size)], [A], batching(), engine=engine).story()
    assert [len(batch) for batch in story.batches] == [4] * (size // 4) + [1] * (size % 4)
    assert isinstance(story.summary, RunSummary)
    assert not isinstance(story.summary, RunResult)


class Diary:
    """Arrivals, a chunk of two at a time, that write down when they are taken; and a sink that does the same."""

    def __init__(self, rows):
        self.rows, self.lines = rows, []

    def arrivals(self):
        whole = workload(self.rows)
        for first in range(0, len(whole), 2):
            self.lines.append(f"chunk {first}")
            yield whole.slice(first, first + 2)
        self.lines.append("no more")

    def sink(self, batch):
        self.lines.append(f"batch {batch.first_request}")

    def run(self, engine, spec=None):
        settings = EngineSettings(interval_s=1.0, horizon_s=seconds(self.rows[-1][0] + 1))
        arrivals = Arrivals(types=("q",), chunks=self.arrivals())
        make = choose_engine(engine).engine
        return make(arrivals, Script([A]), lambda _: offer(spec or batching()), settings, Reality()).stream(self.sink)


@each_engine
def test_batches_leave_while_later_requests_have_not_been_read(engine, batches_of_four):
    diary = Diary([(i * 100, 1, 1) for i in range(10)])
    diary.run(engine)
    assert [line for line in diary.lines if line.startswith("batch")] == ["batch 0", "batch 4", "batch 8"]
    assert diary.lines.index("chunk 4") < diary.lines.index("batch 0") < diary.lines.index("chunk 8")
    assert diary.lines.index("chunk 8") < diary.lines.index("batch 4") < diary.lines.index("batch 8")


@each_engine
def test_a_request_in_flight_holds_back_what_came_after_it(engine, batches_of_four):
    """Request 0 takes until 500; the batches come in the order of arrival all the same."""
    diary = Diary([(0, 1, 50)] + [(i * 100, 1, 1) for i in range(1, 12)])
    diary.run(engine)
    assert [line for line in diary.lines if line.startswith("batch")] == ["batch 0", "batch 4", "batch 8"]
    assert diary.lines.index("chunk 6") < diary.lines.index("batch 0") < diary.lines.index("chunk 10")
    assert diary.lines.index("batch 4") < diary.lines.index("batch 8")


@each_engine
def test_times_in_an_early_batch_are_those_of_the_run(engine, batches_of_four):
    """Whenever the sink is called: every time of a request that has left is there."""
    story = Bench([(i * 100, 1, 2) for i in range(9)], [A], batching(), engine=engine, chunk=2).story()
    assert story.requests.first_token_tick.tolist() == [i * 100 + 10 for i in range(9)]
    assert story.requests.finish_tick.tolist() == [i * 100 + 20 for i in range(9)]


@each_engine
def test_what_fails_in_the_sink_comes_through(engine):
    def sink(batch):
        raise OSError("the disk is full")

    bench = Bench([(0, 1, 1)], [A], batching(), engine=engine)
    with pytest.raises(OSError, match="the disk is full"):
        bench.subject.stream(sink)


@each_engine
def test_chunks_may_be_of_any_size_and_empty(engine):
    whole = workload([(i, 1, 1) for i in range(9)])
    chunks = [whole.slice(0, 0), whole.slice(0, 5), whole.slice(5, 5), whole.slice(5, 6), whole.slice(6, 9)]
    settings = EngineSettings(interval_s=1.0, horizon_s=seconds(9))
    arrivals = Arrivals(types=("q",), chunks=chunks)
    result = choose_engine(engine).engine(arrivals, Script([A]), lambda _: offer(batching()), settings, Reality()).run()
    assert outcomes(result) == [Outcome.SERVED] * 9
    assert result.requests.arrival_tick.tolist() == list(range(9))


@each_engine
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[(0, 1, 1), (5, 1, 1)], [(4, 1, 1)]], "in the order of time"),
        ([[(0, 1, 1)], [(7, 1, 1), (6, 1, 1)]], "in the order of time"),
        ([[(0, 1, 1)], [(99, 1, 1), (100, 1, 1)]], "horizon"),
        ([[(0, 1, 1)], [(9, -1, 1)]], "fewer than 0"),
        ([[(0, 1, 1)], [(9, 1, 10**8 + 1)]], "more than 100,000,000"),
        ([[(0, 10**8 + 1, 1)]], "more than 100,000,000"),
    ],
)
def test_bad_arrivals_are_refused_whenever_they_come(engine, parts, message):
    arrivals = Arrivals(types=("q",), chunks=[workload(part) for part in parts])
    settings = EngineSettings(interval_s=1.0, horizon_s=seconds(100))
    subject = choose_engine(engine).engine(arrivals, Script([A]), lambda _: offer(static()), settings, Reality())
    with pytest.raises(InputError, match=message):
        subject.run()


def test_sizes_are_those_that_are_documented():
    """Two chunks make a batch, and a workload in memory is cut like any other."""
    assert (CHUNK_REQUESTS, BATCH_REQUESTS) == (2**15, 2**16)
    whole = workload([(i, 0, 1) for i in range(CHUNK_REQUESTS + 3)])
    assert [len(chunk) for chunk in Arrivals.of(whole)] == [CHUNK_REQUESTS, 3]
    assert [len(chunk) for chunk in Arrivals(types=("q",), chunks=[whole, whole.slice(0, 0)])] == [CHUNK_REQUESTS, 3]


@each_engine
def test_progress_is_told_with_the_chunks_too(engine):
    shares = []
    whole = workload([(i * 10, 1, 1) for i in range(10)])
    arrivals = Arrivals(types=("q",), chunks=[whole.slice(k, k + 5) for k in (0, 5)])
    settings = EngineSettings(interval_s=1.0, horizon_s=seconds(100))
    make = choose_engine(engine).engine
    make(arrivals, Script([A]), lambda _: offer(batching()), settings, Reality(), shares.append).run()
    assert shares == [0.4]
