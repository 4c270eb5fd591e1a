"""What a reader should know about a trace before trusting its figures, each as a sentence with its numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traces.formats.registry import TraceRead
from traces.statistics.figures import SILENCE_MEANS, figures
from traces.statistics.totals import Ints, Totals

EQUAL_TIMES_SHARE = 0.01
CAP_SHARE = 0.01
CAP_ROWS = 10
CAP_WIDTH = 0.02
"""A cap is sought in the uppermost part of the values, as wide as this share of the largest."""
CAP_CONTRAST = 3.0
"""As many times as many rows as in a part of equal width further below (the mean of five) are no tail."""
FEW_ROWS = 20
"""Of fewer rows nothing is said that a handful of rows may show by chance."""


@dataclass(frozen=True, slots=True)
class TraceWarning:
    """Something odd: of which kind, in words, and the numbers in them."""

    kind: str
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, **self.numbers}


def file_warnings(reads: tuple[TraceRead, ...]) -> list[TraceWarning]:
    """What reading the files came to."""
    warnings = []
    rows = sum(read.rows_in_file for read in reads)
    skipped = sum(read.rows_skipped for read in reads)
    moved = sum(getattr(read, "rows_out_of_order", 0) for read in reads)
    if skipped:
        text = f"{skipped:,} of {rows:,} rows ({skipped / rows:.2%}) could not be read and are left out"
        warnings.append(TraceWarning("rows_skipped", text, {"rows": skipped}))
    if moved:
        text = f"{moved:,} rows ({moved / rows:.2%}) were earlier than the row before them; they are sorted here"
        warnings.append(TraceWarning("rows_out_of_order", text, {"rows": moved}))
    failed = sum(read.rows_failed for read in reads)
    if failed:
        text = f"{failed:,} of {rows:,} requests failed before they were sent and state no time: they are no arrivals"
        warnings.append(TraceWarning("rows_failed", text, {"rows": failed}))
    return warnings + [TraceWarning("note", note) for read in reads for note in read.notes]


def trace_warnings(totals: Totals) -> list[TraceWarning]:
    """What is odd about some requests: tokens, equal rows and times, silences."""
    return [*_tokens("input", totals.input_tokens), *_tokens("output", totals.output_tokens), *_times(totals)]


def _tokens(which: str, counts: Ints) -> Iterator[TraceWarning]:
    rows = int(counts.sum())
    zeros = int(counts[0]) if rows else 0
    if zeros:
        text = f"{_rows(zeros)} ({zeros / rows:.2%}) have no {which} tokens"
        yield TraceWarning(f"zero_{which}_tokens", text, {"rows": zeros, "share": zeros / rows})
    if rows < FEW_ROWS:
        return
    largest = int(np.flatnonzero(counts)[-1])
    if int(counts[largest]) == rows:
        yield TraceWarning(f"constant_{which}_tokens", f"all rows have {largest:,} {which} tokens", {"tokens": largest})
        return
    width = max(1, int(CAP_WIDTH * largest))
    top = int(counts[largest + 1 - width : largest + 1].sum())
    below = counts[max(0, largest + 1 - 6 * width) : largest + 1 - width]
    if top >= max(CAP_ROWS, CAP_SHARE * rows) and top > CAP_CONTRAST * width * float(below.mean()):
        where = f"exactly {largest:,}" if width == 1 else f"{largest + 1 - width:,} to {largest:,}"
        text = f"{top / rows:.1%} of the rows have {where} {which} tokens, the most there are: probably cut off there"
        yield TraceWarning(f"capped_{which}_tokens", text, {"tokens": largest, "rows": top, "share": top / rows})


def _times(totals: Totals) -> Iterator[TraceWarning]:
    known = figures(totals)
    if totals.duplicates:
        text = f"{_rows(totals.duplicates)} ({totals.duplicates / totals.rows:.2%}) repeat an earlier row exactly"
        yield TraceWarning("duplicates", text, {"rows": totals.duplicates, "share": totals.duplicates / totals.rows})
    gaps = totals.gaps.count
    if totals.rows < FEW_ROWS:
        return
    equal = int(known["gap_s"]["zeros"])
    if equal > EQUAL_TIMES_SHARE * gaps:
        text = f"{_rows(equal)} ({equal / totals.rows:.1%}) arrive at the very time of the row before"
        yield TraceWarning("equal_timestamps", text, {"rows": equal, "share": equal / totals.rows})
    grid_s = known["timestamp_grid_s"]
    if grid_s is not None:
        text = f"all times are multiples of {_duration(grid_s)} from the first: shorter gaps are not in the data"
        yield TraceWarning("timestamp_grid", text, {"grid_s": grid_s})
    silent, minute = known["silences"]["over_20_means"], known["silences"]["over_60s"]
    if silent["count"]:
        share = silent["total_s"] / totals.span_s
        number = "a gap is" if silent["count"] == 1 else f"{silent['count']:,} gaps are"
        longest = "it lasts" if silent["count"] == 1 else "the longest lasts"
        threshold_s = SILENCE_MEANS * totals.gaps.mean_s
        over = f", {minute['count']:,} over a minute" if minute["count"] else ""
        text = (
            f"{number} over {SILENCE_MEANS:g} times the mean ({_duration(threshold_s)}){over}; {longest} "
            f"{_duration(totals.gaps.longest_s)}" + f"; together {share:.1%} of the span" * (silent["count"] > 1)
        )
        numbers = {
            "gaps": silent["count"],
            "over_s": threshold_s,
            "gaps_over_60s": minute["count"],
            "longest_s": totals.gaps.longest_s,
            "share_of_span": share,
        }
        yield TraceWarning("silences", text, numbers)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _duration(seconds: float) -> str:
    """Three digits in a fitting unit."""
    for unit, name in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
