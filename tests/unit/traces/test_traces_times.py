"""Times as files state them, and columns as people name them."""

from pathlib import Path

import pytest

from simulator.errors import InputError
from traces.io.columns import find_columns
from traces.io.reader import Asked
from traces.io.times import TimeForm, TimeKind, form_of, parse_iso, written

NS = 10**9
DAY_NS = 1_700_092_800 * NS  # 2023-11-16


@pytest.mark.parametrize(
    ("text", "zoned", "since_midnight_ns"),
    [
        ("2023-11-16", False, 0),
        ("2023-11-16 18", False, 64_800 * NS),
        ("2023-11-16T18:15", False, 65_700 * NS),
        ("2023-11-16 18:15:46.000000001", False, 65_746 * NS + 1),
        ("2023-11-16 18:15:46.5Z", True, 65_746 * NS + NS // 2),
        ("2023-11-16 18:15:46+01:30", True, 60_346 * NS),
        ("2023-11-16 18:15:46-0130", True, 71_146 * NS),
        ("2023-11-16 00:00:00+02", True, -7200 * NS),
    ],
)
def test_iso_times(text: str, zoned: bool, since_midnight_ns: int) -> None:
    assert parse_iso(text, zoned=zoned) == DAY_NS + since_midnight_ns
    assert parse_iso(text, zoned=not zoned) is None


@pytest.mark.parametrize(
    "text",
    [
        *("2023-11-31", "2023-02-29 10:00:00", "2023-11-16 24:00:00", "2023-11-16 10:60", "2023-11-16 10:00:60"),
        *("2023-11-16 10:00:00.", "2023-11-16 10:00:00.1234567890", "9999-01-01", "1500-01-01", " 2023-11-16", ""),
        *("2023-11-16  10:00", "2023-1-16", "٢٠٢٣-11-16", "2023-11-16 10:00:00 +01:00", "2023-11-16Z"),
    ],
)
def test_what_is_no_iso_time(text: str) -> None:
    assert parse_iso(text, zoned=False) is None
    assert parse_iso(text, zoned=True) is None


@pytest.mark.parametrize(
    ("text", "unit", "kind", "of_unit", "value"),
    [
        ("2023-11-16 00:00:01", None, TimeKind.TEXT, "s", DAY_NS + NS),
        ("1700092801", None, TimeKind.EPOCH_INTEGER, "s", DAY_NS + NS),
        ("1700092801.25", None, TimeKind.EPOCH_NUMBER, "s", DAY_NS + NS + NS // 4),
        ("1700092801250", None, TimeKind.EPOCH_INTEGER, "ms", DAY_NS + NS + NS // 4),
        ("1700092801250000", None, TimeKind.EPOCH_INTEGER, "us", DAY_NS + NS + NS // 4),
        ("1700092801250000001", None, TimeKind.EPOCH_INTEGER, "ns", DAY_NS + NS + NS // 4 + 1),
        ("1700092801250", "ms", TimeKind.EPOCH_INTEGER, "ms", DAY_NS + NS + NS // 4),
        ("1.700092801e9", None, TimeKind.EPOCH_NUMBER, "s", DAY_NS + NS),
        ("0", None, TimeKind.RELATIVE, "s", 0.0),
        ("-0", None, TimeKind.RELATIVE, "s", 0.0),
        ("1500", "ms", TimeKind.RELATIVE, "ms", 1.5),
        (" 7.5\t", None, TimeKind.RELATIVE, "s", 7.5),
        ("99999999", None, TimeKind.RELATIVE, "s", 99_999_999.0),
    ],
)
def test_one_time_tells_how_all_are_written(
    text: str, unit: str | None, kind: TimeKind, of_unit: str, value: float
) -> None:
    form = form_of(text, unit)
    assert form == TimeForm(kind, of_unit)
    assert form.parse(text) == value
    assert isinstance(form.parse(text), float if kind is TimeKind.RELATIVE else int)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1_000", "0x10", "1e999", "--1", "1,5"])
def test_what_is_no_time_at_all(text: str) -> None:
    assert form_of(text, None) is None


@pytest.mark.parametrize("text", ["-1", "1e400", "nan", "2023-11-16", ""])
def test_what_a_file_of_relative_times_refuses(text: str) -> None:
    assert TimeForm(TimeKind.RELATIVE).parse(text) is None


def test_times_in_messages() -> None:
    assert written(DAY_NS + 1, zoned=False) == "2023-11-16 00:00:00.000000001"
    assert written(DAY_NS, zoned=True) == "2023-11-16 00:00:00.000000000+00:00"
    assert written(1.5, zoned=False) == "1.5 s"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens", ("TIMESTAMP", "ContextTokens", "GeneratedTokens", None, None)),
        ("arrived_at,num_prefill_tokens,n,output_len", ("arrived_at", "num_prefill_tokens", "output_len", None, None)),
        ("id,arrival_timestamp,prompt_size,token_size", ("arrival_timestamp", "prompt_size", "token_size", None, None)),
        ("timestamp_ms,input_len,output_len,service", ("timestamp_ms", "input_len", "output_len", "service", "ms")),
        (
            "Prompt Tokens,Completion Tokens,Created At",
            ("Created At", "Prompt Tokens", "Completion Tokens", None, None),
        ),
        (
            "created_at,tokens_prompt,tokens_completion,model",
            ("created_at", "tokens_prompt", "tokens_completion", None, None),
        ),
        (
            "startTimeUnixNano,gen_ai.usage.input_tokens,gen_ai.usage.output_tokens",
            ("startTimeUnixNano", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", None, "ns"),
        ),
        ("arrival_time_us,isl,osl", ("arrival_time_us", "isl", "osl", None, "us")),
    ],
)
def test_columns_by_the_names_that_people_give_them(header: str, expected: tuple[str | None, ...]) -> None:
    found = find_columns(header.split(","), Asked(), Path("log.csv"), "line 1")
    assert (found.time, found.input_tokens, found.output_tokens, found.source, found.time_unit) == expected


def test_columns_that_are_named() -> None:
    asked = Asked(columns={"arrival_s": "b", "images": "timestamp"})
    found = find_columns(["timestamp", "b", "input_tokens", "output_tokens"], asked, Path("log.csv"), "line 1")
    assert (found.time, found.extras) == ("b", {"images": "timestamp"})


@pytest.mark.parametrize(
    ("header", "asked", "says"),
    [
        (
            "a,input_tokens",
            {},
            "found no column for arrival_s, output_tokens in 'a,input_tokens'; "
            "name it: --map arrival_s=COLUMN --map output_tokens=COLUMN",
        ),
        ("a,b", {"arrival_s": "When"}, "expected one column 'When' (for arrival_s), found none in 'a,b'"),
        ("a,a", {"arrival_s": "a"}, "expected one column 'a' (for arrival_s), found 2 in 'a,a'"),
    ],
)
def test_columns_that_are_not_there(header: str, asked: dict[str, str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        find_columns(header.split(","), Asked(columns=asked), Path("log.csv"), "line 1")
    assert caught.value.problems == (f"log.csv: line 1: {says}",)
