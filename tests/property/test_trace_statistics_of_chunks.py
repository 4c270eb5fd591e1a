"""Statistics gathered chunk by chunk are those of pandas, NumPy and SciPy over whole columns."""

import math
from functools import reduce
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, spearmanr, wasserstein_distance

from simulator.workload import Trace
from traces.statistics.describe import TraceStatistics
from traces.statistics.distances import BLOCKS, Blocks, values
from traces.statistics.figures import LEVELS, figures
from traces.statistics.totals import GAP_PRECISION, WINDOWS_S

GAPS_NS = (0, 0, 1, 700, 10**6, 25 * 10**6, 10**8, 10**9, 7 * 10**9, 61 * 10**9, 900 * 10**9)
COLUMNS = ["time_ns", "source", "input_tokens", "output_tokens", "images"]


@st.composite
def tables(draw, *, fewest=1):
    """Rows in the order of time; few values, so that times and rows repeat."""
    rows = draw(st.integers(fewest, 60))
    grid_ns = draw(st.sampled_from([1, 1000, 10**6]))
    gap_ns = draw(st.lists(st.sampled_from(GAPS_NS), min_size=rows, max_size=rows))
    time_ns = np.cumsum([(gap // grid_ns) * grid_ns for gap in gap_ns])
    tokens = st.lists(st.sampled_from([0, 1, 2, 5, 400, 7437]), min_size=rows, max_size=rows)
    names = st.lists(st.sampled_from(["conv", "code", "chat"]), min_size=rows, max_size=rows)
    images = st.lists(st.integers(0, 1), min_size=rows, max_size=rows)
    return pd.DataFrame(
        dict(zip(COLUMNS, (time_ns, draw(names), draw(tokens), draw(tokens), draw(images)), strict=True))
    )


@st.composite
def cut(draw, table):
    """The table as chunks, whose sources are those that have been seen so far."""
    places = draw(st.lists(st.integers(0, len(table)), max_size=6))
    edges = sorted({0, len(table), *places})
    return [chunk(table, start, stop) for start, stop in pairwise(edges)]


def chunk(table, start=0, stop=None):
    part = table.iloc[start:stop]
    names = list(dict.fromkeys(table["source"].iloc[:stop]))
    return Trace(
        sources=tuple(names),
        arrival_s=part["time_ns"].to_numpy() / 1e9,
        source=np.array([names.index(name) for name in part["source"]], dtype=np.int32),
        input_tokens=part["input_tokens"].to_numpy(dtype=np.int32),
        output_tokens=part["output_tokens"].to_numpy(dtype=np.int32),
        extras={"images": part["images"].to_numpy(dtype=np.int32)},
    )


def gathered(chunks, **options):
    statistics = TraceStatistics(**options)
    for part in chunks:
        statistics.add(part)
    return statistics


def naive(table):
    """What `figures` gives, from whole columns."""
    time_ns = table["time_ns"]
    since_ns = time_ns - time_ns.iloc[0]
    gap_ns = time_ns.diff().dropna()
    span_ns = int(since_ns.iloc[-1])
    counts = {w: windowed(since_ns, span_ns, round(w * 1e9)) for w in WINDOWS_S}
    minutes, busy = counts[60.0]
    gap_us = [int(gap) // 1000 for gap in gap_ns if gap % 1000 == 0]
    divisor = reduce(math.gcd, gap_us, 0) if len(gap_us) == len(gap_ns) else 0
    ranked = table["input_tokens"].nunique() > 1 and table["output_tokens"].nunique() > 1
    return {
        "rows": len(table),
        "first_arrival_s": time_ns.iloc[0] / 1e9,
        "span_s": span_ns / 1e9,
        "rate_per_min": len(table) / span_ns * 6e10 if span_ns else None,
        "full_minutes": minutes,
        "peak_per_min": int(busy.max()) if minutes else None,
        "idle_minutes": minutes - len(busy) if minutes else None,
        "gap_cv": float(gap_ns.std(ddof=0) / gap_ns.mean()) if len(gap_ns) and gap_ns.mean() else None,
        "dispersion": {f"{w:g}s": dispersion(*counted) for w, counted in counts.items()},
        "input_tokens": tokens(table["input_tokens"]),
        "output_tokens": tokens(table["output_tokens"]),
        "spearman": float(spearmanr(table["input_tokens"], table["output_tokens"]).statistic) if ranked else None,
        "spearman_rows": len(table),
        "duplicates": int(table.duplicated().sum()),
        "timestamp_grid_s": divisor / 1e6 if divisor >= 1000 else None,
        "extras": {
            "images": {
                "share_of_rows": float((table["images"] > 0).mean()),
                "mean": float(table["images"].mean()),
                "max": int(table["images"].max()),
            }
        },
    }


def windowed(since_ns, span_ns, width_ns):
    """Number of full windows, and the counts of those that are not empty."""
    number = span_ns // width_ns
    window = since_ns.to_numpy() // width_ns
    return number, np.unique(window[window < number], return_counts=True)[1]


def dispersion(number, busy):
    if number < 2 or not len(busy):
        return None
    mean = busy.sum() / number
    return float((((busy - mean) ** 2).sum() + (number - len(busy)) * mean**2) / number / mean)


def tokens(column):
    return {
        "total": int(column.sum()),
        "mean": float(column.mean()),
        "std": float(column.std(ddof=0)),
        "min": int(column.min()),
        "max": int(column.max()),
        **dict(zip(LEVELS, np.quantile(column, list(LEVELS.values())).tolist(), strict=True)),
        "zeros": int((column == 0).sum()),
    }


def check_group(found, table):
    expected = naive(table)
    gaps, silences = found.pop("gap_s"), found.pop("silences")
    check_gaps(gaps, silences, table["time_ns"].diff().dropna() / 1e9)
    assert_same(found, expected)


def assert_same(found, expected, where=""):
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for name, value in expected.items():
            assert_same(found[name], value, f"{where}.{name}")
    else:
        assert found == (None if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-9)), where


def check_gaps(gaps, silences, gap_s):
    if not len(gap_s):
        assert gaps["mean"] is None
        return
    assert gaps["mean"] == pytest.approx(gap_s.mean())
    assert gaps["max"] == pytest.approx(gap_s.max())
    assert gaps["zeros"] == (gap_s == 0).sum()
    quantiles = dict(zip(LEVELS, np.quantile(gap_s, list(LEVELS.values())), strict=True))
    assert {name: gaps[name] for name in LEVELS} == pytest.approx(quantiles, rel=1.01 * GAP_PRECISION, abs=1e-12)
    over = gap_s[gap_s > 60]
    assert silences["over_60s"] == {"count": len(over), "total_s": pytest.approx(over.sum())}
    # Gaps that lie in the bin of the threshold may be on either side of it.
    threshold_s = 20 * gap_s.mean()
    clear = gap_s[(gap_s / threshold_s - 1).abs() > 1e-3] if threshold_s else gap_s[:0]
    unclear = len(gap_s) - len(clear) if threshold_s else 0
    assert 0 <= silences["over_20_means"]["count"] - (clear > threshold_s).sum() <= unclear


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_statistics_in_chunks_are_those_of_whole_columns(data):
    table = data.draw(tables())
    statistics = gathered(data.draw(cut(table)))
    check_group(figures(statistics.totals()), table)
    by_source = statistics.by_source()
    assert list(by_source) == list(dict.fromkeys(table["source"]))
    for name, totals in by_source.items():
        check_group(figures(totals), table[table["source"] == name])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_sample_is_evenly_spaced_and_does_not_depend_on_the_chunks(data):
    table = data.draw(tables(fewest=20))
    totals = gathered(data.draw(cut(table)), sample_rows=8).totals()
    stride = 2 ** math.ceil(math.log2(len(table) / 8))
    kept = table.iloc[::stride]
    assert totals.spearman_rows == len(kept) <= 8
    assume(kept["input_tokens"].nunique() > 1 and kept["output_tokens"].nunique() > 1)
    expected = spearmanr(kept["input_tokens"], kept["output_tokens"]).statistic
    assert totals.spearman == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(tables(fewest=3), tables(fewest=3))
def test_distances_are_those_of_scipy(first, second):
    found = values(*(gathered([chunk(table)]).totals() for table in (first, second)))
    for which in ("input", "output"):
        columns = [table[f"{which}_tokens"].to_numpy(dtype=float) for table in (first, second)]
        check_distances(found, which, columns, 1e-9)
    gaps = [np.diff(table["time_ns"]) / 1e9 for table in (first, second)]
    check_distances(found, "gap", gaps, 2 * GAP_PRECISION)


def check_distances(found, name, columns, precision):
    # The statistic alone: the exact p-value of small samples warns where it cannot be had.
    assert found[f"{name}_ks"].value == pytest.approx(ks_2samp(*columns, method="asymp").statistic)
    mean = columns[0].mean()
    if mean:
        scale = sum(column.mean() for column in columns)
        expected = wasserstein_distance(*columns)
        assert found[f"{name}_w1"].value * mean == pytest.approx(expected, rel=1e-9, abs=precision * scale + 1e-12)
    else:
        assert f"{name}_w1" not in found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_blocks_hold_each_request_once_and_their_windows_fill_them(data):
    table = data.draw(tables(fewest=2))
    whole = gathered([chunk(table)]).totals()
    assume(whole.span_s > 0)
    blocks = Blocks(whole)
    for part in data.draw(cut(table)):
        blocks.add(part)
    for source in (None, *dict.fromkeys(table["source"])):
        mine = table if source is None else table[table["source"] == source]
        found = blocks.totals(source)
        edges_s = whole.first_s + whole.span_s * np.arange(BLOCKS + 1) / BLOCKS
        number = np.searchsorted(edges_s[1:-1], mine["time_ns"] / 1e9, side="right")
        assert [totals.rows for totals in found] == np.bincount(number, minlength=BLOCKS).tolist()
        for totals in found:
            assert totals.span_s == pytest.approx(whole.span_s / BLOCKS)
            for window_s, windows in totals.windows.items():
                # One more or less where a block is a whole number of windows, but for rounding.
                assert abs(windows.windows - totals.span_s / window_s) <= 1
                assert windows.arrivals <= totals.rows
