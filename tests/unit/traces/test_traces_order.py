"""Rows in the order of time: what is sorted, what is refused, and on which clock it comes out."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from traces.formats.registry import OutOfOrder, Reading, read_chunks, read_trace
from traces.io.on_bad_row import OnBadRow
from traces.io.order import Order, TooLate, in_order, on_clock, without_steps_back
from traces.io.reader import BadRow, Block

NS = 10**9


def block(time: Sequence[float], first: int = 1, *, bad: int = 0, integers: bool = False, zoned: bool = False) -> Block:
    """Rows of given times, numbered from `first`; input tokens are the numbers."""
    count = len(time)
    numbers = np.arange(first, first + count, dtype=np.int32)
    return Block(
        time=np.array(time, dtype=np.int64 if integers else np.float64),
        sources=("conv",),
        source=np.zeros(count, dtype=np.int32),
        input_tokens=numbers,
        output_tokens=numbers,
        rows=count + bad,
        bad=[BadRow(first + count + k, f"line {first + count + k}: bad", "text") for k in range(bad)],
        row_of=lambda index: (first + index, f"row {first + index}"),
        zoned=zoned,
    )


def cut(time: Sequence[float], *at: int) -> Iterator[Block]:
    for begin, end in pairwise([0, *at, len(time)]):
        yield block(time[begin:end], begin + 1)


def rows(blocks: Sequence[Block]) -> list[tuple[float, int]]:
    return [row for b in blocks for row in zip(b.time.tolist(), b.input_tokens.tolist(), strict=True)]


@pytest.mark.parametrize("at", [(), (3,), (1, 2, 5, 5, 7)])
@pytest.mark.parametrize("window_rows", [1, 3, 100])
def test_rows_in_order_pass_as_they_are(at: tuple[int, ...], window_rows: int) -> None:
    time = [0, 1, 1, 2, 2, 2, 3, 9]
    order = Order()
    found = list(in_order(cut(time, *at), order, window_rows))
    assert rows(found) == [(t, k) for k, t in enumerate(time, start=1)]
    assert (order.steps_back, sum(b.rows for b in found)) == (0, 8)


@pytest.mark.parametrize("at", [(), (4,), (1, 2, 3, 4, 5, 6, 7)])
def test_rows_out_of_order_are_sorted_and_equal_ones_stay_as_they_were(at: tuple[int, ...]) -> None:
    time = [5, 3, 4, 3, 5, 1, 1, 5]
    order = Order()
    found = list(in_order(cut(time, *at), order))
    assert rows(found) == sorted(((t, k) for k, t in enumerate(time, start=1)), key=lambda row: row[0])
    assert order.steps_back == 3
    assert sum(b.rows for b in found) == 8


def test_a_row_within_the_window_is_sorted_and_one_beyond_it_is_named() -> None:
    late = [*range(10), 5.5]
    assert rows(list(in_order(cut(late, *range(1, 11)), Order(), 5)))[6] == (5.5, 11)
    with pytest.raises(TooLate) as caught:
        list(in_order(cut([*range(10), 1.25], *range(1, 11)), Order(), 5))
    assert (caught.value.number, caught.value.late_s) == (11, 2.75)


def test_a_row_as_old_as_the_last_one_passed_on_is_not_too_late() -> None:
    time = [0, 1, 2, 3, 4, 5, 1]
    assert rows(list(in_order(cut(time, *range(1, 7)), Order(), 5)))[:3] == [(0, 1), (1, 2), (1, 7)]


def test_no_more_rows_are_held_than_the_window_and_bad_ones_not_at_all() -> None:
    taken = 0

    def blocks() -> Iterator[Block]:
        nonlocal taken
        for k in range(100):
            taken += 1
            yield block([] if k % 2 else [float(k)], bad=3 if k % 2 else 0)

    passed = 0
    for found in in_order(blocks(), Order(), window_rows=4):
        passed += found.rows
        assert taken - passed / 2 <= 8
        assert not (found.bad and len(found))
    assert passed == 200


def test_steps_back_are_counted_from_row_to_row_across_blocks() -> None:
    order = Order()
    list(in_order(cut([3, 2, 4, 1, 5], 1, 3), order))
    assert order.steps_back == 2


def test_strict_refuses_what_goes_back_and_tells_the_line_before() -> None:
    found = list(without_steps_back(cut([1, 3, 2, 2.5, 3, 4], 3), "line"))
    assert rows(found) == [(1, 1), (3, 2), (3, 5), (4, 6)]
    assert [row for b in found for row in b.bad] == [
        BadRow(3, "line 3, time: expected one not before 3 s of line 2, found 2 s", "row 3"),
        BadRow(4, "line 4, time: expected one not before 3 s of line 2, found 2.5 s", "row 4"),
    ]
    assert sum(b.rows for b in found) == 6


def test_strict_keeps_bad_rows_in_the_order_of_the_file() -> None:
    (found,) = without_steps_back([block([2, 1], bad=1)], "row")
    assert [row.number for row in found.bad] == [2, 3]


def test_times_since_1970_are_counted_from_the_first() -> None:
    noon = 1_715_342_400 * NS
    blocks = [block([noon + 1999, noon + NS], integers=True, zoned=True), block([noon + 2 * NS], integers=True)]
    (_, first), (_, second) = on_clock(blocks)
    assert first.start == second.start == datetime(2024, 5, 10, 12, 0, 0, 1, tzinfo=UTC)
    assert first.arrival_s.tolist() == [9.99e-7, 0.999999]
    assert second.arrival_s.tolist() == [1.999999]


def write(path: Path, seconds: Sequence[float]) -> Path:
    path.write_text("timestamp,input_tokens,output_tokens\n" + "".join(f"{s},{k},1\n" for k, s in enumerate(seconds)))
    return path


def test_a_file_beyond_the_window_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", [*range(20), 2.5])
    with pytest.raises(OutOfOrder) as caught:
        list(read_chunks(path, Reading(window_rows=5), chunk_rows=1))
    message = str(caught.value)
    assert message.startswith(f"{path}: line 22: ")
    assert message.endswith(
        " s earlier than rows that came more than 5 rows before it; "
        f"sort the file first: tokenfleet trace convert {path} --out FILE"
    )
    assert isinstance(caught.value, InputError)


def test_with_strict_there_is_no_window(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", [*range(20), 2.5])
    reading = Reading(window_rows=5, strict=True, on_bad_row=OnBadRow.SKIP)
    assert (read_trace(path, reading).rows_skipped, read_trace(path, reading).rows_out_of_order) == (1, 0)


def test_a_file_in_reverse_order_is_sorted(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path / "log.csv", range(300, 0, -1)))
    assert read.trace.input_tokens.tolist() == list(range(299, -1, -1))
    assert read.rows_out_of_order == 299
