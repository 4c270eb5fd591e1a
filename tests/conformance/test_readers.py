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
from traces.formats.registry import READERS, Reading, WholeTrace, read_chunks, read_trace
from traces.io.on_bad_row import OnBadRow

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


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if not s.name.endswith((".parquet", ".gz"))], ids=lambda s: f"{s.format}-{s.name}"
)
@pytest.mark.parametrize("packer", PACKERS)
def test_it_may_be_packed(sample: Sample, tmp_path: Path, packer: str) -> None:
    path = written(sample, tmp_path)
    data = PACKERS[packer](path.read_bytes())
    path.write_bytes(data)
    as_stated(sample, read(sample, path))
    # What was cut off may be the check sum alone, after all rows: it is refused all the same.
    for cut in {1, 3, 7, len(data) // 2, len(data) - 8}:
        path.write_bytes(data[:-cut])
        with pytest.raises(InputError) as caught:
            read(sample, path)
        assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("between", [b"", b"\0" * 8, b"\0" * 200_000])
def test_parts_that_were_packed_one_by_one_are_one_file(tmp_path: Path, packer: str, between: bytes) -> None:
    if packer == "zstd" and between:
        pytest.skip("zstd has no padding")
    path = tmp_path / "log.csv"
    parts = [b"timestamp,input_tokens,output_tokens\n1,2,3\n4,5", b",6\n7,8,9\n"]
    path.write_bytes(between.join(map(PACKERS[packer], parts)) + between)
    assert [row[2:] for row in rows(read_trace(path))] == [(2, 3), (5, 6), (8, 9)]


@pytest.mark.parametrize("packer", PACKERS)
def test_damage_between_parts_is_not_the_end_of_the_file(tmp_path: Path, packer: str) -> None:
    path = tmp_path / "log.csv"
    first, second = map(PACKERS[packer], (b"timestamp,input_tokens,output_tokens\n1,2,3\n", b"4,5,6\n"))
    path.write_bytes(first + b"XX" + second[2:])
    with pytest.raises(InputError, match="the packed file is damaged"):
        read_trace(path)


def test_parquet_is_not_packed_once_more(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.format == "tokenfleet")
    path = written(sample, tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="cannot be read as Parquet: it is packed"):
        read(sample, path)


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if s.lines and len(s.rows) > 1], ids=lambda s: f"{s.format}-{s.name}"
)
def test_rows_that_go_back_are_sorted_or_refused(sample: Sample, tmp_path: Path) -> None:
    path = written(sample, tmp_path)
    data = path.read_bytes().decode()
    lines = data.splitlines()
    header = [] if sample.name.endswith(".jsonl") else lines[:1]
    lines = lines[len(header) :]
    path.write_text("\n".join([*header, *lines[::-1]]))
    result = read(sample, path)
    assert [row[0] for row in rows(result)] == [row[0] for row in sample.rows]
    assert sorted(rows(result)) == sorted(sample.rows)
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
            f"{path}: line 3, column window_start_s: expected a number from 0 to 4.6e+09, found 'soon'",
            f"{path}: line 12, column requests_per_s: expected a number from 0 to 1000000, found '-1'",
        )
        quantiles = path.with_name("mine_token_quantiles.csv")
        path.write_text(text)
        quantiles.write_text(quantiles.read_text().replace("m-small,input", "m-tiny,input"))
        with pytest.raises(InputError, match=f"{quantiles}: expected quantiles of m-small input_tokens"):
            read_trace(path)
        path.write_text("workload,window_start_s,requests_per_s\nm-large,0,1e6\nm-large,600,1\n")
        quantiles.write_text(quantiles.read_text().replace("m-tiny", "m-small"))
        with pytest.raises(InputError) as caught:
            read_trace(path)
        assert caught.value.problems == (
            f"{path}: line 2: expected a window of at most 10,000,000 requests, found 1e+06 per second for 600 s",
        )
        path.write_text("workload,window_start_s,requests_per_s\nm-large,0,0\n")
        with pytest.raises(InputError, match=f"{path}: expected at least one request, found none"):
            read_trace(path)
        path.write_text(text)
        quantiles.unlink()
        with pytest.raises(InputError, match=f"{quantiles}: expected the quantiles of the tokens"):
            read_trace(path)

    def test_bad_rows_are_told_whatever_is_in_them(self, path: Path) -> None:
        lines = path.read_bytes().split(b"\n")
        lines[2:2] = [b"m\rl,0,1", b'"m-large,0,1', b"m-\xff,0,1", b"", b"m-large,9e9,1", b"m-large,0,nan"]
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(InputError) as caught:
            read_trace(path)
        assert [problem.removeprefix(f"{path}: ") for problem in caught.value.problems] == [
            "line 3: expected 3 fields or more, found 'm\\rl,0,1'",
            "line 4: expected 3 fields or more, found '\"m-large,0,1'",
            "line 5, column workload: expected a name, found 'm-\\\\xff'",
            "line 6: expected 3 fields or more, found ''",
            "line 7, column window_start_s: expected a number from 0 to 4.6e+09, found '9e9'",
            "1 more bad rows (of 28 rows in the file)",
        ]
        assert read_trace(path, Reading(on_bad_row=OnBadRow.SKIP)).rows_skipped == 6

    def test_it_may_be_delimited_otherwise(self, path: Path) -> None:
        expected = read_trace(path).trace
        for table in (path, path.with_name("mine_token_quantiles.csv")):
            table.write_text(table.read_text().replace(",", "\t"))
        assert read_trace(path).trace.arrival_s.tobytes() == expected.arrival_s.tobytes()
