"""Bad rows in files: each with its line, what is wrong and its text, whole or not at all."""

import csv
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.errors import InputError
from traces.formats.registry import Reading
from traces.io.on_bad_row import OnBadRow
from traces.io.quarantine import Quarantine
from traces.io.reader import BadRow
from traces.source import TraceFiles

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46,374,44\n"


@pytest.fixture
def survey(tmp_path: Path) -> Callable[..., list[Path | None]]:
    """Surveys files with their bad rows in the folder `bad`; tells where those of each file are."""

    def run(*paths: Path, strict: bool = False) -> list[Path | None]:
        reading = Reading(on_bad_row=OnBadRow.QUARANTINE, quarantine=tmp_path / "bad", strict=strict)
        survey = TraceFiles([(path, None) for path in paths], reading, chunk_rows=2).survey()
        return [read.quarantine for read in survey.reads]

    return run


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def content(path: Path | None) -> list[list[str]]:
    assert path is not None
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_each_bad_row_is_there_with_its_text(tmp_path: Path, survey: Callable[..., list[Path | None]]) -> None:
    bad = ['2023-11-16 18:15:47,"x, ""y"",2', "a\rb", "é,1", ""]
    text = (HEADER + GOOD + "".join(f"{row}\n" for row in bad)).encode() + b"\xff,1,1\n" + GOOD.encode()
    path = write(tmp_path / "trace_conv.csv", text)
    (target,) = survey(path)
    assert target == tmp_path / "bad" / "trace_conv.csv.bad-rows.csv"
    header, *rows = content(target)
    assert header == ["file", "row", "problem", "text"]
    assert [(row[0], int(row[1]), row[3]) for row in rows] == [
        (str(path), number, text) for number, text in enumerate([*bad, "\\xff,1,1"], start=3)
    ]
    assert all(row[2].startswith(f"line {row[1]}") for row in rows)
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    assert target.stat().st_mode & 0o777 == 0o644


def test_rows_that_go_back_are_bad_with_strict(tmp_path: Path, survey: Callable[..., list[Path | None]]) -> None:
    path = write(tmp_path / "trace_conv.csv", f"{HEADER}{GOOD}2023-11-16 10:00:00,1,1\n{GOOD}")
    (target,) = survey(path, strict=True)
    assert [row[3] for row in content(target)[1:]] == ["2023-11-16 10:00:00,1,1"]


def test_without_bad_rows_there_is_no_file_not_even_an_old_one(
    tmp_path: Path, survey: Callable[..., list[Path | None]]
) -> None:
    path = write(tmp_path / "trace_conv.csv", HEADER + GOOD + "x\n")
    (target,) = survey(path)
    assert target is not None
    write(path, HEADER + GOOD)
    assert survey(path) == [None]
    assert list(target.parent.iterdir()) == []


def test_files_of_one_name_do_not_overwrite_each_other(
    tmp_path: Path, survey: Callable[..., list[Path | None]]
) -> None:
    paths = [write(tmp_path / name / "log.csv", f"{HEADER}{GOOD}{name}\n") for name in ("a", "b", "c")]
    targets = survey(*paths)
    assert [target.name for target in targets if target] == [
        "log.csv.bad-rows.csv",
        "log.csv.2.bad-rows.csv",
        "log.csv.3.bad-rows.csv",
    ]
    assert [content(target)[1][3] for target in targets] == ["a", "b", "c"]


def test_nothing_is_left_of_a_survey_that_fails(tmp_path: Path, survey: Callable[..., list[Path | None]]) -> None:
    good, broken = write(tmp_path / "a.csv", HEADER + GOOD + "x\n"), write(tmp_path / "b.csv", HEADER)
    with pytest.raises(InputError, match="line 2: expected at least one row"):
        survey(good, broken)
    assert list((tmp_path / "bad").iterdir()) == []


def test_a_survey_that_is_broken_off_keeps_the_file_of_an_earlier_one(
    tmp_path: Path, survey: Callable[..., list[Path | None]]
) -> None:
    path = write(tmp_path / "a.csv", HEADER + GOOD + "x\n")
    (target,) = survey(path)
    before = content(target)

    def broken_off(_: object) -> None:
        raise KeyboardInterrupt

    reading = Reading(on_bad_row=OnBadRow.QUARANTINE, quarantine=tmp_path / "bad")
    with pytest.raises(KeyboardInterrupt):
        TraceFiles([(path, None)], reading).survey(broken_off)
    assert content(target) == before
    assert [file.name for file in (tmp_path / "bad").iterdir()] == ["a.csv.bad-rows.csv"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, survey: Callable[..., list[Path | None]]) -> None:
    write(tmp_path / "bad", "a file")
    path = write(tmp_path / "a.csv", HEADER + GOOD)
    with pytest.raises(InputError, match=r"bad/a.csv.bad-rows.csv: cannot be written: File exists"):
        survey(path)


def test_a_full_disk_is_told_of_the_file_that_is_written(tmp_path: Path) -> None:
    class Full:
        def writerow(self, row: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    quarantine = Quarantine(Path("trace.csv"), tmp_path)
    quarantine._writer = Full()  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"trace.csv.bad-rows.csv: cannot be written: No space left on device"):
        quarantine.add(BadRow(1, "line 1: bad", "x"))
    quarantine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_a_file_that_is_no_unicode(tmp_path: Path) -> None:
    quarantine = Quarantine(Path("tr\udcffce.csv"), tmp_path)
    try:
        quarantine.add(BadRow(1, "line 1: bad", "x"))
        target = quarantine.keep()
    finally:
        quarantine.close()
    assert content(target)[1][0] == "tr\\udcffce.csv"
