"""JSON lines and JSON documents: what a row is, and one exact message for each way in which it can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import InputError
from traces.formats.registry import Reading, WholeTrace, read_trace
from traces.io.on_bad_row import OnBadRow

GOOD = '{"timestamp": 5, "prompt_tokens": 3, "completion_tokens": 4, "service": "chat"}'
SKIP = Reading(on_bad_row=OnBadRow.SKIP)
DIGITS = "9" * 400  # more than a float can hold
TOKENS = "expected an integer from 0 to 10000000, found "


def write(folder: Path, *lines: str, name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def problems(path: Path, reading: Reading | None = None) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read_trace(path, reading)
    prefix = f"{path}: "
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return tuple(problem.removeprefix(prefix) for problem in caught.value.problems)


def tokens(read: WholeTrace) -> list[tuple[int, int]]:
    return list(zip(read.trace.input_tokens.tolist(), read.trace.output_tokens.tolist(), strict=True))


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(GOOD), **fields})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "line 2: expected a JSON object, found an empty line"),
        ("what", "line 2: expected a JSON object, found 'what'"),
        ("[1]", "line 2: expected a JSON object, found '[1]'"),
        (GOOD[:-1], f"line 2: expected a JSON object, found {GOOD[:-1]!r}"),
        ("[" * 10_000, f"line 2: expected a JSON object, found '{'[' * 77}...'"),
        ('{"timestamp": 6}', "line 2, field prompt_tokens: expected an integer from 0 to 10000000, found nothing"),
        (changed(timestamp=None), "line 2, field timestamp: expected a number from 0 to 4.6e+09 [s], found None"),
        (changed(timestamp=True), "line 2, field timestamp: expected a number from 0 to 4.6e+09 [s], found True"),
        (changed(timestamp=-1), "line 2, field timestamp: expected a number from 0 to 4.6e+09 [s], found -1"),
        (changed(timestamp="soon"), "line 2, field timestamp: expected a number from 0 to 4.6e+09 [s], found 'soon'"),
        (
            changed(timestamp=float("nan")),
            "line 2, field timestamp: expected a number from 0 to 4.6e+09 [s], found nan",
        ),
        (changed(prompt_tokens=-1), f"line 2, field prompt_tokens: {TOKENS}-1"),
        (changed(prompt_tokens=1.5), f"line 2, field prompt_tokens: {TOKENS}1.5"),
        (changed(prompt_tokens="7"), f"line 2, field prompt_tokens: {TOKENS}'7'"),
        (changed(prompt_tokens=True), f"line 2, field prompt_tokens: {TOKENS}True"),
        (changed(prompt_tokens=[1]), f"line 2, field prompt_tokens: {TOKENS}[1]"),
        (changed(completion_tokens=10_000_001), f"line 2, field completion_tokens: {TOKENS}10000001"),
        (changed(completion_tokens=float("nan")), f"line 2, field completion_tokens: {TOKENS}nan"),
        (changed(completion_tokens=int(DIGITS)), f"line 2, field completion_tokens: {TOKENS}{'9' * 77}..."),
        (changed(service=""), "line 2, field service: expected a name, found ''"),
        (changed(service=7), "line 2, field service: expected a name, found 7"),
        (changed(service="\ud800"), r"line 2, field service: expected a name, found '\\ud800'"),
    ],
)
def test_a_bad_row_is_named_and_can_be_skipped(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, GOOD, line, GOOD)
    assert problems(path) == (message,)
    read = read_trace(path, SKIP)
    assert (tokens(read), read.rows_in_file, read.rows_skipped) == ([(3, 4), (3, 4)], 3, 1)


def test_a_number_beyond_all_digits_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, GOOD.replace("5", "9" * 5000), GOOD.replace("5", DIGITS))
    assert [problem.split(":")[0] for problem in problems(path)] == ["line 2", "line 3, field timestamp"]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.write_bytes(path.read_bytes() + b'{"timestamp": "\xff"}\n')
    assert problems(path) == (r"""line 2: expected a JSON object, found '{"timestamp": "\\xff"}'""",)


def test_a_bad_first_line_is_a_bad_row_like_others(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD[:20], GOOD)
    assert problems(path) == (f"line 1: expected a JSON object, found {GOOD[:20]!r}",)
    assert tokens(read_trace(path, SKIP)) == [(3, 4)]


def test_a_first_line_of_any_length_is_read(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path, changed(prompt="x" * 200_000), GOOD))
    assert (read.format, tokens(read)) == ("jsonl", [(3, 4), (3, 4)])


def test_the_first_row_with_a_time_tells_how_all_are_written(tmp_path: Path) -> None:
    path = write(tmp_path, changed(timestamp="?"), changed(timestamp="2024-05-10T10:00:00Z"), GOOD)
    assert problems(path) == (
        "line 1, field timestamp: expected a time such as 2023-11-16 18:15:46.680590, or a number, found '?'",
        "line 3, field timestamp: expected a time such as 2023-11-16 18:15:46.680590+00:00, found 5",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "line 1: expected the beginning of a known trace format ("),
        ('[{"when": 1}]', "line 1: found no column for arrival_s, input_tokens, output_tokens in 'when'; name it: "),
        (
            '{\n"runs": [1]\n}',
            "expected an object per request, in lines or as a list, found one JSON document of no known ",
        ),
        ("{}", "line 1: expected the beginning of a known trace format ("),
    ],
)
def test_json_of_another_kind(tmp_path: Path, text: str, says: str) -> None:
    assert problems(write(tmp_path, text))[0].startswith(says)


def test_a_format_that_is_asked_for_says_what_it_found(tmp_path: Path) -> None:
    reading = Reading(trace_format="jsonl")
    assert problems(write(tmp_path, "a,b"), reading) == ("line 1: expected a JSON object, found 'a,b'",)
    path = write(tmp_path, '{"timestamp": 1}')
    assert problems(path, reading)[0].startswith("line 1: found no column for input_tokens, output_tokens in ")


def test_keys_can_be_named(tmp_path: Path) -> None:
    columns = {"arrival_s": "When", "input_tokens": "In", "output_tokens": "Out"}
    path = write(tmp_path, '{"When": 1, "In": 2, "Out": 3}')
    assert tokens(read_trace(path, Reading(columns=columns))) == [(2, 3)]


class TestMooncake:
    def test_prefixes_are_of_whole_blocks_from_the_start_and_no_longer_than_the_prompt(self, tmp_path: Path) -> None:
        requests = [(0, 1500, [1, 2, 3]), (1, 1500.0, [1, 2, 9]), (2, 600, [1, 2]), (3, 600, [7, 1])]
        lines = [
            json.dumps({"timestamp": time, "input_length": length, "output_length": 1, "hash_ids": hashes})
            for time, length, hashes in requests
        ]
        read = read_trace(write(tmp_path, *lines))
        assert read.format == "mooncake"
        assert read.trace.extras["prefix_tokens"].tolist() == [0, 1024, 600, 0]
        assert read.trace.arrival_s.tolist() == [0, 0.001, 0.002, 0.003]

    def test_a_first_line_that_is_cut_does_not_make_it_another_format(self, tmp_path: Path) -> None:
        line = '{"timestamp": 2000, "input_length": 1, "output_length": 1, "hash_ids": []}'
        read = read_trace(write(tmp_path, line[:30], line), SKIP)
        assert (read.format, read.rows_skipped, read.trace.arrival_s.tolist()) == ("mooncake", 1, [2.0])

    @pytest.mark.parametrize("hashes", ["7", '["a"]', "{}"])
    def test_hashes_that_are_none(self, tmp_path: Path, hashes: str) -> None:
        line = f'{{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": {hashes}}}'
        shown = repr(json.loads(hashes))
        (message,) = problems(write(tmp_path, line.replace(hashes, "[]"), line))
        assert message.startswith("line 2: expected a list of integers in hash_ids, found ")
        assert message.endswith(shown) or '"' in shown


class TestDocuments:
    """Results of vLLM and GuideLLM."""

    def vllm(self, folder: Path, **lists: Any) -> Path:
        document = {"input_lens": [1, 2], "output_lens": [3, 4], "start_times": [7.5, 8.0], **lists}
        return write(folder, json.dumps(document), name="vllm.json")

    def test_the_first_list_may_be_long(self, tmp_path: Path) -> None:
        many = 20_000
        path = self.vllm(tmp_path, input_lens=[1024] * many, output_lens=[1] * many, start_times=list(range(many)))
        read = read_trace(path)
        assert (read.format, read.rows_in_file, read.trace.span_s) == ("vllm", many, many - 1)

    @pytest.mark.parametrize("start", [float("nan"), float("inf"), True, None, int(DIGITS)])
    def test_a_start_that_is_none_is_a_bad_row(self, tmp_path: Path, start: object) -> None:
        (message,) = problems(self.vllm(tmp_path, start_times=[start, 8.0]))
        assert message.startswith("request 1, field start_times: expected a ")

    def test_lists_that_do_not_fit(self, tmp_path: Path) -> None:
        assert problems(self.vllm(tmp_path, start_times=[1])) == (
            "expected lists of one length, found start_times 1, input_lens 2, output_lens 2",
        )
        assert problems(self.vllm(tmp_path, start_times=None)) == (
            "field start_times: expected a list, found nothing; "
            "write the file with --save-detailed and a vLLM that saves it",
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"input_lens": ', "line 1, column 15: expected one JSON document: Expecting value"),
            ('{"input_lens": [1}', "line 1, column 18: expected one JSON document: Expecting ',' delimiter"),
            ('{"input_lens": ' + "9" * 5000, "expected a JSON document, found a number with thousands of digits"),
            ('{"input_lens": ' + "[" * 10**5, "expected a JSON document, found one that is nested too deeply"),
            ('{"input_lens": "\udcff"}', "expected text in UTF-8, found byte 0xff"),
        ],
    )
    def test_a_document_that_cannot_be_read(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "vllm.json"
        path.write_bytes(text.encode(errors="surrogateescape") + b"\n")
        assert problems(path) == (message,)

    @pytest.mark.parametrize(
        ("runs", "message"),
        [
            ([], "field benchmarks: expected a list of runs, found '[]'"),
            ([{}], "field benchmarks[0].requests: expected an object, found 'None'"),
            ([{"requests": {"successful": 7}}], "field benchmarks[0].requests.successful: expected a list, found '7'"),
            ([{"requests": {"successful": []}}], "expected at least one request, found none"),
            (
                [{"requests": {"successful": [{"start_time": 1, "prompt_tokens": None, "output_tokens": 1}]}}],
                f"request 1, field prompt_tokens: {TOKENS}None",
            ),
            ([{"requests": {"successful": [7]}}], "request 1: expected an object, found '7'"),
        ],
    )
    def test_reports_without_requests(self, tmp_path: Path, runs: object, message: str) -> None:
        path = write(tmp_path, json.dumps({"benchmarks": runs}), name="benchmarks.json")
        assert message in problems(path)
