"""What every trace format owes: recognised, read to the last digit, packed or not, however its lines end, in order."""

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from simulator.errors import InputError
from tests.trace_samples import SAMPLES, Sample
from traces.registry import READERS, OnBadRow, Reading, WholeTrace, read_chunks, read_trace

IDS = [f"{sample.format}-{sample.name}-{k}" for k, sample in enumerate(SAMPLES)]
every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
every_text = pytest.mark.parametrize("sample", [s for s in SAMPLES if s.lines], ids=lambda s: f"{s.format}-{s.name}")


def written(sample: Sample, folder: Path) -> Path:
    path = folder / sample.name
    sample.write(path)
    return path


def read(sample: Sample, path: Path, **options: object) -> WholeTrace:
    return read_trace(path, Reading(columns=sample.columns, **options))  # type: ignore[arg-type]


def rows(result: WholeTrace) -> list[tuple[float, str, int, int]]:
    trace = result.trace
    names = [trace.sources[k] for k in trace.source]
    tokens = trace.input_tokens.tolist(), trace.output_tokens.tolist()
    return list(zip(trace.arrival_s.tolist(), names, *tokens, strict=True))


def as_stated(sample: Sample, result: WholeTrace) -> None:
    assert result.format == sample.format
    assert rows(result) == sample.rows
    assert result.trace.start == sample.start
    assert {name: column.tolist() for name, column in result.trace.extras.items()} == sample.extras
    assert (result.rows_in_file, result.rows_skipped, result.first_problems) == (len(sample.rows), 0, ())


def test_every_format_has_a_sample() -> None:
    assert {sample.format for sample in SAMPLES} == READERS.keys() - {"servegen"}


@every_sample
def test_it_is_recognised_and_read(sample: Sample, tmp_path: Path) -> None:
    as_stated(sample, read(sample, written(sample, tmp_path)))


@every_sample
@pytest.mark.parametrize("chunk_rows", [1, 2])
def test_in_chunks_too(sample: Sample, tmp_path: Path, chunk_rows: int) -> None:
    chunks = list(read_chunks(written(sample, tmp_path), Reading(columns=sample.columns), chunk_rows=chunk_rows))
    assert [t for chunk in chunks for t in chunk.arrival_s.tolist()] == [row[0] for row in sample.rows]
    assert [chunk.sources[k] for chunk in chunks for k in chunk.source] == [row[1] for row in sample.rows]


@every_sample
def test_a_source_that_is_given_takes_the_place_of_all(sample: Sample, tmp_path: Path) -> None:
    path = written(sample, tmp_path)
    trace = read_trace(path, Reading(columns=sample.columns), source="chat").trace
    assert (trace.sources, set(trace.source.tolist())) == (("chat",), {0})


@every_text
@pytest.mark.parametrize("change", ["mark", "crlf", "no last newline", "empty lines at the end"])
def test_lines_may_end_as_they_like(sample: Sample, tmp_path: Path, change: str) -> None:
    path = written(sample, tmp_path)
    data = path.read_bytes()
    changed = {
        "mark": b"\xef\xbb\xbf" + data,
        "crlf": data.replace(b"\n", b"\r\n"),
        "no last newline": data.removesuffix(b"\n"),
        "empty lines at the end": data + b"\n\r\n\n",
    }
    path.write_bytes(changed[change])
    as_stated(sample, read(sample, path))


PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@every_text
@pytest.mark.parametrize("packer", PACKERS)
def test_it_may_be_packed(sample: Sample, tmp_path: Path, packer: str) -> None:
    path = written(sample, tmp_path)
    data = PACKERS[packer](path.read_bytes())
    path.write_bytes(data)
    as_stated(sample, read(sample, path))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as caught:
        read(sample, path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if s.lines and len(s.rows) > 1], ids=lambda s: f"{s.format}-{s.name}"
)
def test_rows_that_go_back_are_sorted_or_refused(sample: Sample, tmp_path: Path) -> None:
    path = written(sample, tmp_path)
    data = path.read_bytes().decode()
    lines = data.splitlines()
    header = [] if sample.format in ("mooncake", "jsonl") else lines[:1]
    lines = lines[len(header) :]
    path.write_text("\n".join([*header, *lines[::-1]]))
    result = read(sample, path)
    assert [row[0] for row in rows(result)] == [row[0] for row in sample.rows]
    assert sorted(rows(result)) == sorted(sample.rows) or sample.format == "mooncake"
    assert result.rows_out_of_order > 0
    with pytest.raises(InputError, match=r"line \d, time: expected one not before"):
        read(sample, path, strict=True)
    skipped = read(sample, path, strict=True, on_bad_row=OnBadRow.SKIP)
    assert skipped.rows_in_file == len(sample.rows) == len(skipped.trace) + skipped.rows_skipped


@every_sample
@pytest.mark.parametrize("trace_format", [name for name in READERS if name != "servegen"])
def test_a_format_that_is_asked_for_reads_it_or_says_why_not(sample: Sample, tmp_path: Path, trace_format: str) -> None:
    path = written(sample, tmp_path)
    problems: tuple[str, ...] = ()
    try:
        result = read_trace(path, Reading(trace_format=trace_format))
    except InputError as error:
        problems = error.problems
    if problems:
        assert trace_format != sample.format or sample.columns
        assert all(problem.startswith(f"{path}: ") for problem in problems)
    else:
        assert len(result.trace) == len(sample.rows)


class TestRates:
    """`servegen`: requests are drawn from rates."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        rates = ["workload,window_start_s,requests_per_s"]
        rates += [f"m-{name},{600 * k},{rate}" for name, rate in (("large", 4), ("small", 1)) for k in range(10)]
        (tmp_path / "mine_rates_10min.csv").write_text("\n".join([*rates, "m-large,6000,0", "m-large,6600,8"]) + "\n")
        quantiles = ["workload,field,quantile_pct,tokens"]
        for name, top in (("large", 1000), ("small", 100)):
            for kind in ("input_tokens", "output_tokens"):
                quantiles += [f"m-{name},{kind},{p},{top * p / 100}" for p in (0, 50, 100)]
                quantiles += [f"m-{name},{kind},mean,7"]
        (tmp_path / "mine_token_quantiles.csv").write_text("\n".join(quantiles))
        return tmp_path / "mine_rates_10min.csv"

    def test_rates_and_lengths_are_those_of_the_tables(self, path: Path) -> None:
        result = read_trace(path)
        trace = result.trace
        assert (result.format, result.rows_in_file, result.rows_skipped) == ("servegen", 22, 0)
        large, small = (trace.source == trace.sources.index(f"m-{name}") for name in ("large", "small"))
        counts = np.bincount((trace.arrival_s[large] // 600).astype(int), minlength=12)
        assert (np.abs(counts[:10] - 2400) < 5 * 2400**0.5).all()
        assert (counts[10], abs(counts[11] - 4800) < 5 * 4800**0.5) == (0, True)
        assert abs(small.sum() - 6000) < 5 * 6000**0.5
        assert np.quantile(trace.input_tokens[large], [0.25, 0.5, 0.75]) == pytest.approx([250, 500, 750], rel=0.05)
        assert trace.output_tokens[small].mean() == pytest.approx(50, rel=0.05)
        assert abs(np.corrcoef(trace.input_tokens[large], trace.output_tokens[large])[0, 1]) < 0.03
        assert (np.diff(trace.arrival_s) >= 0).all()
        assert result.rows_out_of_order == 0

    def test_one_file_is_one_draw(self, path: Path) -> None:
        first, second = read_trace(path).trace, read_trace(path).trace
        assert first.arrival_s.tobytes() == second.arrival_s.tobytes()
        assert first.input_tokens.tobytes() == second.input_tokens.tobytes()

    def test_what_is_wrong_is_said(self, path: Path) -> None:
        text = path.read_text()
        path.write_text(text.replace("m-small,0,1", "m-small,0,-1").replace("m-large,600,4", "m-large,soon,4"))
        with pytest.raises(InputError) as caught:
            read_trace(path)
        assert caught.value.problems == (
            f"{path}: line 3, column window_start_s: expected a finite number from 0, found 'soon'",
            f"{path}: line 12, column requests_per_s: expected a number from 0 to 1000000, found '-1'",
        )
        quantiles = path.with_name("mine_token_quantiles.csv")
        path.write_text(text)
        quantiles.write_text(quantiles.read_text().replace("m-small,input", "m-tiny,input"))
        with pytest.raises(InputError, match=f"{quantiles}: expected quantiles of m-small input_tokens"):
            read_trace(path)
        quantiles.unlink()
        with pytest.raises(InputError, match=f"{quantiles}: expected the quantiles of the tokens"):
            read_trace(path)
