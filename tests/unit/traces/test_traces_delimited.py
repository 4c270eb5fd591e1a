"""Text tables: what Arrow must not decide, bad rows among many good ones, and fields of any length."""

from pathlib import Path

import pytest

from simulator.errors import InputError
from traces.formats.registry import Reading, read_chunks, read_trace
from traces.io import delimited
from traces.io.on_bad_row import OnBadRow
from traces.io.reader import BadRow

HEADER = "timestamp,source,input_tokens,output_tokens,note"


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "log.csv"
    path.write_bytes("".join(f"{row}\n" for row in (header, *rows)).encode(errors="surrogateescape"))
    return path


def outcome(path: Path) -> tuple[list[tuple[float, str, int]], list[BadRow]]:
    bad: list[BadRow] = []
    chunks = read_chunks(path, Reading(on_bad_row=OnBadRow.SKIP), on_bad=bad.append)
    columns = [(chunk.arrival_s, chunk.sources, chunk.source, chunk.output_tokens) for chunk in chunks]
    return [(t, names[k], n) for times, names, ks, ns in columns for t, k, n in zip(times, ks, ns, strict=True)], bad


@pytest.mark.parametrize(
    "row",
    [
        '5,"a"b,1,1,-',  # a quoted field that goes on
        '5,""x,1,1,-',
        '5,a,1,1,"p',  # a quote that is not closed
        '5,a,1,1,q"r"\r-',
        "5,a,1,1,x\r6,b,2,2,y",  # two rows to Arrow
        "5,a,0x1,1,-",
        "5,a,1,0X1,-",
    ],
)
@pytest.mark.parametrize("neighbours", [0, 1, 500])
def test_a_row_that_is_bad_is_so_whatever_stands_around_it(tmp_path: Path, row: str, neighbours: int) -> None:
    good = ["5,a,1,1,-"] * neighbours
    path = write(tmp_path, "5,a,1,1,-", *good, row, *good, "5,a,1,1,-")
    rows, bad = outcome(path)
    assert len(rows) == 2 * neighbours + 2
    assert [(found.number, found.text) for found in bad] == [(3 + neighbours, row)]


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ('"5","a","1","1","-"', "a"),
        ('5,"a, b",1,1,"-"', "a, b"),
        ('5,"a ""b""",1,1,-', 'a "b"'),
        ('5,"""a",1,1,-', '"a'),
        ('5,a"b,1,1,-', 'a"b'),
        ("5,é,1.0,1,-", "é"),
        ("5,a,1,1,x\0", "a"),
    ],
)
@pytest.mark.parametrize("others", [[], ["5,a,x,1,-"], ["5,a,x,1,-", *["5,a,1,1,-"] * 500]])
def test_a_row_that_is_good_is_so_whatever_stands_around_it(
    tmp_path: Path, row: str, source: str, others: list[str]
) -> None:
    rows, bad = outcome(write(tmp_path, row, *others))
    assert rows[0] == (5, source, 1)
    assert len(bad) == min(len(others), 1)


def test_two_wrongs_do_not_make_a_right(tmp_path: Path) -> None:
    """A line that is two rows to Arrow and two lines that are none: their number is right, the rows are not."""
    rows, bad = outcome(write(tmp_path, "1,a,1,1,x\r2,a,2,2,y", '3,a,3,3,"p', "q", "4,a,4,4,z"))
    assert rows == [(4, "a", 4)]
    assert [row.number for row in bad] == [2, 3, 4]


@pytest.mark.parametrize("others", [0, 500])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("chunk_rows", [1, 7, 2**17])
def test_a_row_goes_on_where_a_quote_is_open(tmp_path: Path, others: int, end: str, chunk_rows: int) -> None:
    plain = [f"{k},a,1,{k},-" for k in range(others)]
    broken = '600,b,2,8,"say', '""x"",', "", '"'
    path = tmp_path / "log.csv"
    stray = '601,a,1,9,"never closed'
    path.write_bytes(end.join([HEADER, *plain, *broken, stray, "602,a,1,10,5 inch", "604,a,,11,-", ""]).encode())
    bad: list[BadRow] = []
    chunks = list(read_chunks(path, Reading(on_bad_row=OnBadRow.SKIP), chunk_rows=chunk_rows, on_bad=bad.append))
    outputs = [tokens for chunk in chunks for tokens in chunk.output_tokens.tolist()]
    assert outputs == [*range(others), 8, 10]
    assert [(row.number, row.text) for row in bad] == [(others + 6, stray), (others + 8, "604,a,,11,-")]


@pytest.mark.parametrize("times", ["{}", "170000{:04}", "170000{:04}.5", "2024-05-10 10:00:{:07.4f}", "{}.25"])
def test_bad_rows_among_many_good_ones(tmp_path: Path, times: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{times.format(k / 1000 if '{:07' in times else k)},{'bd'[k % 2]},1,{k},-" for k in range(3000)]
    for k in (1, 700, 701, 1500, 2998):
        rows[k] = rows[k].replace("-", "", 1) if k == 1500 and times.startswith("2024") else f"{rows[k]},"
    path = write(tmp_path, "?,a,1,1,-", *rows)
    found, bad = outcome(path)
    assert [row.number for row in bad] == [2, 4, 703, 704, 1503, 3001]
    assert [row[1:] for row in found] == [("bd"[k % 2], k) for k in range(3000) if k not in (1, 700, 701, 1500, 2998)]
    monkeypatch.setattr(delimited._Table, "_fast", lambda *_, **__: None)
    assert outcome(path) == (found, bad)


def test_sources_are_numbered_by_their_first_good_rows(tmp_path: Path) -> None:
    rows = [f"{k},{name},1,1,-" for k, name in enumerate(["x", "é", "a", "é"] * 100)]
    read = read_trace(write(tmp_path, rows[0] + ",", *rows[1:]), Reading(on_bad_row=OnBadRow.SKIP))
    assert read.trace.sources == ("é", "a", "x")


@pytest.mark.parametrize("column", ["note", "before"])
@pytest.mark.parametrize("bad", [False, True])
def test_a_field_may_be_long(tmp_path: Path, column: str, bad: bool) -> None:
    """Prompts stand in some tables; the first row is then longer than what is looked at to recognise a file."""
    prompt = '"' + 'say ""x"", ' * 20_000 + '"'
    header = HEADER if column == "note" else "before," + HEADER.removesuffix(",note")
    rows = [f"2024-05-10 10:00:0{k},a,1,{k}" for k in range(3)]
    rows = [f"{row},{prompt}" if column == "note" else f"{prompt},{row}" for row in rows]
    path = write(tmp_path, *rows, *["what"] * bad, header=header)
    assert [row[2] for row in outcome(path)[0]] == [0, 1, 2]
    assert len(outcome(path)[1]) == bad


def test_the_first_time_may_come_late(tmp_path: Path) -> None:
    rows, bad = outcome(write(tmp_path, *["soon,a,1,1,-"] * 9000, "2024-05-10 10:00:00,a,1,1,-"))
    assert (len(rows), len(bad)) == (1, 9000)


def test_where_there_is_no_time_at_all_it_is_said_what_is_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(write(tmp_path, "05/10/2024,a,1,1,-"))
    assert caught.value.problems[1].endswith(
        "line 2, column timestamp: expected a time such as 2023-11-16 18:15:46.680590, or a number, found '05/10/2024'"
    )


def test_a_line_without_end_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.io.lines.MAX_LINE_BYTES", 1000)
    path = write(tmp_path, "5,a,1,1,-", "5,a,1,1," + "x" * 5000)
    with pytest.raises(InputError, match="line 3: expected a line of at most 1,000 bytes, found a longer one"):
        list(read_chunks(path, chunk_rows=10))
    path.write_text(HEADER + ",x" * 5000)
    with pytest.raises(InputError, match="line 1: expected a line of at most 1,000 bytes, found a longer one"):
        read_trace(path)


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "1,1,1,2", header="timestamp,input_tokens,output_tokens,output_tokens")
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert caught.value.problems == (
        f"{path}: line 1: expected one column 'output_tokens' (for output_tokens), found 2",
    )
