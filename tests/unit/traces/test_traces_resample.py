"""The block bootstrap: what a block keeps, where it may come from, and that memory and chunks make no difference."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.workload import Trace
from traces.io.chunks import concatenate
from traces.io.parquet import write_parquet
from traces.source import TraceFiles, TraceInMemory
from traces.synthetic.resample import Blocks, blocks_of, resample

DAY_S = 86_400


def numbered(span_s: int, *, step_s: int = 10, start: datetime | None = None, first_s: float = 0.0) -> Trace:
    """A request every `step_s`; its input is its number, its output the second of the trace, its source the parity."""
    arrival_s = np.arange(0, span_s, step_s, dtype=np.float64)
    number = np.arange(len(arrival_s), dtype=np.int32)
    return Trace(
        sources=("even", "odd"),
        start=start,
        arrival_s=arrival_s + first_s,
        source=number % 2,
        input_tokens=number,
        output_tokens=arrival_s.astype(np.int32),
    )


def drawn(trace: Trace, block_s: float, duration_s: float, seed: int = 0, **options: object) -> Trace:
    with blocks_of(TraceInMemory(trace), block_s) as blocks:
        return concatenate(list(resample(blocks, duration_s=duration_s, seed=seed, **options)))  # type: ignore[arg-type]


def test_a_block_is_as_it_was() -> None:
    trace = drawn(numbered(3600, step_s=2), 300.0, 6 * 3600.0)
    assert trace.sources == ("even", "odd")
    assert len(trace) == 6 * 1800
    blocks = trace.output_tokens.reshape(-1, 150)
    number = blocks[:, 0] // 300
    assert (blocks == number[:, None] * 300 + np.arange(0, 300, 2)).all()
    assert trace.arrival_s.tolist() == np.arange(0, 6 * 3600, 2).tolist()
    assert (trace.source == trace.input_tokens % 2).all()
    assert set(number.tolist()) == set(range(12))  # each of the twelve is drawn, with replacement, in no order
    assert number[:12].tolist() != sorted(number[:12])


def test_every_block_is_as_likely() -> None:
    number = drawn(numbered(1000, step_s=1), 100.0, 400_000.0).output_tokens // 100
    counts = np.bincount(number, minlength=10) / 100
    assert counts.sum() == 4000
    assert np.abs(counts - 400).max() < 4 * 400**0.5


def test_a_shorter_one_is_the_beginning_of_a_longer_one_and_seeds_differ() -> None:
    trace = numbered(3600)
    longer, shorter, other = drawn(trace, 300, 7200), drawn(trace, 300, 1234), drawn(trace, 300, 7200, seed=1)
    count = int(np.searchsorted(longer.arrival_s, 1234))
    assert shorter.input_tokens.tolist() == longer.input_tokens[:count].tolist()
    assert shorter.arrival_s.tolist() == longer.arrival_s[:count].tolist()
    assert other.input_tokens.tolist() != longer.input_tokens.tolist()


@pytest.mark.parametrize(("span_s", "whole"), [(1200, 4), (1195, 3), (1500, 5), (601, 2)])
def test_the_rest_after_the_last_whole_block_is_left_out(span_s: int, whole: int) -> None:
    with blocks_of(TraceInMemory(numbered(span_s, step_s=1, first_s=7.25)), 300.0) as blocks:
        assert len(blocks) == whole
        assert blocks.requests == min(300 * whole, span_s)
        assert blocks.read(whole - 1)["output_tokens"][0] == 300 * (whole - 1)


def test_keep_daytime_draws_from_the_same_time_of_other_days() -> None:
    start = datetime(2024, 5, 10, 6, tzinfo=UTC)
    trace = numbered(3 * DAY_S, step_s=600, start=start)
    made = drawn(trace, 3600.0, 5 * DAY_S, keep_daytime=True)
    assert made.start == start
    assert (made.output_tokens % DAY_S == made.arrival_s % DAY_S).all()
    assert set((made.output_tokens // DAY_S).tolist()) == {0, 1, 2}
    # Begun at midnight, it begins with what the real trace had at midnight.
    midnight = drawn(trace, 3600.0, DAY_S, keep_daytime=True, start=start + timedelta(days=30, hours=18))
    assert ((midnight.output_tokens + 6 * 3600) % DAY_S == midnight.arrival_s).all()


@pytest.mark.parametrize(
    ("span_s", "block_s", "start", "message"),
    [
        (3 * DAY_S, 7000.0, None, "keep-daytime: expected a block of which a day has a whole number, found 7000 s"),
        (DAY_S // 2, 3600.0, None, "keep-daytime: expected a trace of at least a day, found whole blocks of 12 h"),
        (
            2 * DAY_S,
            3600.0,
            datetime(2024, 1, 1),
            "keep-daytime: the trace does not tell the time of the day, so start cannot be given",
        ),
    ],
)
def test_keep_daytime_needs_days(span_s: int, block_s: float, start: datetime | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        drawn(numbered(span_s, step_s=10), block_s, 100.0, keep_daytime=True, start=start)
    assert str(caught.value) == message


def test_rate_factors_thin_and_lay_over() -> None:
    trace = numbered(36_000)
    half = drawn(trace, 300, 36_000, rate_factor=0.5)
    assert len(half) == pytest.approx(1800, rel=0.08)
    assert np.unique(half.arrival_s).size == len(half)
    more = drawn(trace, 300, 36_000, rate_factor=2.5)
    assert len(more) == pytest.approx(9000, rel=0.05)
    assert np.bincount((more.arrival_s // 10).astype(int)).max() == 3  # three layers, of which each has its own blocks
    first = more.rows(np.flatnonzero(more.arrival_s < 300))
    assert len(set((first.output_tokens // 300).tolist())) == 3


def test_stretched_time() -> None:
    once, twice = drawn(numbered(3600), 300, 3600), drawn(numbered(3600), 300, 7200, time_factor=2.0)
    assert twice.arrival_s.tolist() == (2 * once.arrival_s).tolist()
    assert twice.input_tokens.tolist() == once.input_tokens.tolist()


def test_further_columns_go_with_their_requests() -> None:
    plain = numbered(1800)
    trace = Trace(
        sources=plain.sources,
        arrival_s=plain.arrival_s,
        source=plain.source,
        input_tokens=plain.input_tokens,
        output_tokens=plain.output_tokens,
        extras={"images": plain.input_tokens % 7},
    )
    made = drawn(trace, 300, 3600)
    assert made.extras["images"].tolist() == (made.input_tokens % 7).tolist()


def test_chunks_of_the_real_trace_make_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "real.parquet"
    write_parquet(path, [numbered(3600)])

    def made(chunk_rows: int) -> Trace:
        with blocks_of(TraceFiles([(path, None)], chunk_rows=chunk_rows), 300.0) as blocks:
            return concatenate(list(resample(blocks, duration_s=7200, seed=0)))

    one, other = made(7), made(10_000)
    for name in ("arrival_s", "source", "input_tokens", "output_tokens"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_a_trace_that_is_too_short_and_blocks_that_are_none() -> None:
    with pytest.raises(
        InputError, match=r"block: expected a trace of at least two blocks of 300 s, found one of 400 s"
    ):
        drawn(numbered(410), 300.0, 60.0)
    for block_s in (0.0, float("nan")):
        with pytest.raises(InputError, match="block: expected a finite number of seconds above zero, found"):
            drawn(numbered(410), block_s, 60.0)
    with pytest.raises(InputError, match="block: 1e-06 s cuts the trace into more than 10000000 blocks"):
        drawn(numbered(410), 1e-6, 60.0)
    with pytest.raises(InputError, match="rate_factor: expected a finite number above zero, found 0"):
        drawn(numbered(3600), 300.0, 60.0, rate_factor=0)


def test_blocks_without_a_request_are_time_that_passes() -> None:
    gap = numbered(3000, step_s=1)
    sparse = gap.rows(np.flatnonzero((gap.arrival_s < 100) | (gap.arrival_s >= 2900)))
    made = drawn(sparse, 100.0, 30_000.0)
    busy = np.unique(made.arrival_s // 100)
    assert 5 < len(busy) < 50  # 2 of 30 blocks, of which 300 are drawn
    assert len(made) == 100 * len(busy)
    with blocks_of(TraceInMemory(sparse), 100.0) as blocks:
        assert isinstance(blocks, Blocks)
        assert len(blocks) == 30
