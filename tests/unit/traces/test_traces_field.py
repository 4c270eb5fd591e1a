"""Files as people have them: each reads as it should, and no hint that a reader prints leads to a dead end."""

import json
import re
from pathlib import Path
from typing import ClassVar

import pytest

from simulator.errors import InputError
from tests.command_line import run_in_process
from traces.formats.registry import Reading, WholeTrace, read_trace
from traces.io.on_bad_row import OnBadRow
from traces.io.paths import MISSING, at, leaves

FIELD = Path(__file__).parents[2] / "data" / "field"
SCENARIO = """
format = "tokenfleet-scenario/1"
name = "field"
discipline = "batching"
capacity = "batching"
[limits]
budget_usd_per_h = 50.0
[[query_types]]
name = "any"
expected = { arrival_per_h = 3600.0, input_tokens = 600.0, output_tokens = 50.0 }
delay_slo_s = 60.0
tpot_slo_s = 0.1
error_slo = 1.0
unmet_penalty_usd_per_query = 1.0
"""


def read(name: str, **options: object) -> WholeTrace:
    return read_trace(FIELD / name, Reading(**options))  # type: ignore[arg-type]


def span_s(found: WholeTrace) -> float:
    return float(found.trace.arrival_s[-1] - found.trace.arrival_s[0])


def seen_before(found: WholeTrace) -> float:
    return float(found.trace.extras["prefix_tokens"].sum() / found.trace.input_tokens.sum())


def lines(folder: Path, *records: object, name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_qwen_bailian_has_seconds_and_blocks_of_16() -> None:
    found = read("qwen_bailian_like_blksz_16.jsonl.gz")
    assert (found.format, len(found.trace)) == ("qwen-bailian", 600)
    assert span_s(found) == pytest.approx(214.182)
    assert seen_before(found) == pytest.approx(0.394, abs=5e-4)
    assert "39.4% of the input tokens were seen before; prefix caching is not simulated" in found.notes[1]


def test_aliases_with_hashes_are_mooncake_in_milliseconds() -> None:
    found = read("mooncake_aliases_ms.jsonl")
    assert (found.format, span_s(found), len(found.trace)) == ("mooncake", 29.5, 60)


def test_later_turns_of_a_session_arrive_after_their_delay() -> None:
    found = read("mooncake_sessions_delay.jsonl")
    assert found.trace.arrival_s.tolist() == [0, 1.5, 2.5, 4, 5, 6.5, 7.5, 9, 10, 11.5, 12.5, 14]
    assert found.notes[0].startswith("6 later turns of sessions state only a delay: each is taken to arrive")


def test_nested_records_of_tools() -> None:
    aiperf, otel = read("aiperf_profile_export.jsonl.gz"), read("otel_spans.jsonl")
    assert (aiperf.format, len(aiperf.trace), span_s(aiperf)) == ("aiperf", 40, pytest.approx(24.277763107))
    assert (otel.format, len(otel.trace), span_s(otel)) == ("otel", 20, 4.75)
    assert otel.trace.input_tokens.tolist() == [*range(500, 520)]
    with pytest.raises(InputError, match=r"found no column for input_tokens, output_tokens in 'timestamp,request_inp"):
        read("perf_analyzer_profile_export.json")
    columns = {"input_tokens": "512", "output_tokens": "request_inputs.payload.max_tokens"}
    profile = read("perf_analyzer_profile_export.json", columns=columns)
    assert (set(profile.trace.input_tokens), set(profile.trace.output_tokens)) == ({512}, {8})
    assert (len(profile.trace), span_s(profile)) == (10, 4.5)


def test_sglang_keeps_no_start_times() -> None:
    with pytest.raises(
        InputError, match=r"field start_times: found nothing: SGLang's bench_serving keeps no start times"
    ):
        read("sglang_bench_details.jsonl")


def test_names_of_columns_that_gateways_give() -> None:
    found = read("openrouter_activity.csv")
    assert (found.trace.input_tokens[0], found.trace.output_tokens[0]) == (800, 300)
    assert found.trace.extras["prefix_tokens"].tolist() == [512] * 20
    assert found.notes[0].endswith("column model_permaslug may tell them apart: --map source=model_permaslug")
    mapped = read("openrouter_activity.csv", columns={"source": "model_permaslug"})
    assert (mapped.trace.sources, len(mapped.notes)) == (("m",), 1)


def test_appended_results_are_runs_on_one_clock(tmp_path: Path) -> None:
    found = read("vllm_appended.json.gz")
    assert (found.trace.sources, len(found.trace)) == (("run1", "run2", "run3"), 90)
    assert [round(float(found.trace.arrival_s[k]), 6) for k in (0, 30, 60)] == [0, 1000, 2000]
    run = {"input_lens": [1, 2], "output_lens": [3, 4], "start_times": [50.0, 51.0]}
    path = lines(tmp_path, run, {**run, "start_times": [7.5, 8.0]})  # of another boot
    again = read_trace(path)
    assert again.trace.arrival_s.tolist() == [0, 1, 1, 1.5]
    assert again.notes == ("the results are of several clocks: each run begins where the one before it ends",)


def test_requests_that_were_never_sent_are_counted_and_no_arrivals(tmp_path: Path) -> None:
    found = read("vllm_failed_zero_start.json.gz")
    assert (found.rows_in_file, found.rows_failed, found.rows_skipped, len(found.trace)) == (30, 2, 0, 28)
    assert span_s(found) == pytest.approx(11.6)
    ok = {"request_start_time": 1.7e9, "prompt_tokens": 5, "output_tokens": 7}
    runs = [{"requests": {"successful": [ok], "errored": [{"request_start_time": None}]}}]
    guide = read_trace(lines(tmp_path, {"benchmarks": runs}))
    assert (guide.rows_in_file, guide.rows_failed, len(guide.trace)) == (2, 1, 1)
    described = run_in_process("trace", "describe", FIELD / "vllm_failed_zero_start.json.gz")
    assert "2 of 30 requests failed before they were sent and state no time: they are no arrivals" in described.stderr


def test_guidellm_with_long_arguments() -> None:
    found = read("guidellm_long_args.json.gz")
    assert (found.format, found.trace.sources, len(found.trace)) == ("guidellm", ("run1", "run2", "run3"), 33)


def test_a_quoted_line_break_is_within_a_row() -> None:
    found = read("litellm_null_and_cached.csv", on_bad_row=OnBadRow.SKIP)
    assert (found.rows_in_file, found.rows_skipped) == (20, 1)
    assert found.first_problems[0].endswith(
        "line 8, column completion_tokens: expected an integer from 0 to 10000000, found ''"
    )


class TestUnits:
    """Of times and blocks: what cannot be right is asked for."""

    def hashed(self, folder: Path, step: float, block: int, **more: object) -> Path:
        records = [
            {
                "timestamp": round(k * step, 6),
                "input_length": 40 * block + k,
                "output_length": 5,
                "hash_ids": [*range(41)],
                **more,
            }
            for k in range(30)
        ]
        return lines(folder, *records)

    def test_seconds_that_are_read_as_milliseconds(self, tmp_path: Path) -> None:
        path = self.hashed(tmp_path, 0.5, 512)
        with pytest.raises(InputError, match=r"if it is ms there are 30 requests in 0.0145 s, 2,000 per second"):
            read_trace(path)
        assert span_s(read_trace(path, Reading(time_unit="s"))) == 14.5
        assert span_s(read_trace(path, Reading(time_unit="ms"))) == pytest.approx(0.0145)

    def test_blocks_that_do_not_fit_their_prompts(self, tmp_path: Path) -> None:
        for block in (16, 32, 2048):
            path = self.hashed(tmp_path, 500, block)
            with pytest.raises(InputError, match=f"30 of 30 prompts do not fit .* rather --block-tokens {block}$"):
                read_trace(path)
            found = read_trace(path, Reading(block_tokens=block))
            assert found.trace.extras["prefix_tokens"][1] == min(41 * block, 40 * block + 1)

    def test_hashes_without_their_beginnings_are_chained(self, tmp_path: Path) -> None:
        record = {"timestamp": 0, "input_length": 32, "output_length": 1, "chat_id": 1, "parent_chat_id": -1}
        path = lines(tmp_path, {**record, "hash_ids": [1, 2]}, {**record, "hash_ids": [2, 1]})
        assert read_trace(path).trace.extras["prefix_tokens"].tolist() == [0, 0]

    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    def test_milliseconds_that_are_read_as_seconds(self, tmp_path: Path, suffix: str) -> None:
        rows = [{"timestamp": 20_000 * k, "input_tokens": 5, "output_tokens": 6} for k in range(20)]
        path = lines(tmp_path, *rows, name="log.jsonl")
        if suffix == "csv":
            path = tmp_path / "log.csv"
            text = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(text))
        with pytest.raises(InputError, match=r"--time-unit s: 0.18 per hour; --time-unit ms: 180 per hour"):
            read_trace(path)
        assert span_s(read_trace(path, Reading(time_unit="ms"))) == 19 * 20
        path.write_text(path.read_text().replace("timestamp", "timestamp_s"))
        assert span_s(read_trace(path)) == 19 * 20_000


class TestPaths:
    RECORD: ClassVar = {
        "a.b": 1,
        "a": {"b": 2, "c.d": [{"e": 3}, {"e": 4}]},
        "attributes": [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": "500"}}, {"key": "x", "value": 6}],
        "payload": '{"max_tokens": 7}',
    }

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("a.b", 1),
            ("a.c.d[1].e", 4),
            ("a.c.d[2].e", MISSING),
            ("attributes[0].value", 500),
            ("attributes.gen_ai.usage.input_tokens", 500),
            ("attributes.x", 6),
            ("payload.max_tokens", 7),
            ("payload.x", MISSING),
            ("a.b.c", MISSING),
            ("", RECORD),
        ],
    )
    def test_what_a_path_leads_to(self, path: str, value: object) -> None:
        assert at(self.RECORD, path) == value

    def test_every_leaf_is_a_path(self) -> None:
        assert len(leaves(self.RECORD)) == 7
        assert all(at(self.RECORD, path) is not MISSING for path in leaves(self.RECORD))


def table(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


def records(*items: object) -> str:
    return table(*map(json.dumps, items))


PROFILE = (FIELD / "perf_analyzer_profile_export.json").read_text()
HASHED = {"timestamp": 1, "input_length": 64, "output_length": 3, "hash_ids": [1, 2, 3, 4]}
AIPERF = {name: {"value": 2} for name in ("input_sequence_length", "output_sequence_length")}
COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
# Files that lead to a hint, and what holds what in them.
HINTED: dict[str, tuple[str, dict[str, str]]] = {
    "columns of a table": (table("when,a,b", "1,2,3"), dict(zip(COLUMNS, ("when", "a", "b"), strict=True))),
    "one column of a table": (table("timestamp,input_tokens,b", "1,2,3"), {"output_tokens": "b"}),
    "keys inside records": (
        records({"t": {"at": 1}, "n": [{"i": 2}, {"o": 3}]}),
        dict(zip(COLUMNS, ("t.at", "n[0].i", "n[1].o"), strict=True)),
    ),
    "a number for all": (records({"timestamp": 1, "output_tokens": 3}), {"input_tokens": "512"}),
    "a list": (json.dumps([{"timestamp": 1, "x": 3, "y": 4}]), {"input_tokens": "x", "output_tokens": "y"}),
    "perf_analyzer": (PROFILE, {"input_tokens": "512", "output_tokens": "request_inputs.payload.max_tokens"}),
    "a source in a table": (table("time_s,input_tokens,output_tokens,user", "1,2,3,me"), {}),
    "a source in records": (
        records({"time_s": 1, "input_tokens": 2, "output_tokens": 3, "request": {"model": "m"}}),
        {},
    ),
    "a source of Mooncake": (records({**HASHED, "hash_ids": [], "type": "text"}), {}),
    "a source of AIPerf": (records({"metadata": {"request_start_ns": 1, "model": "m"}, "metrics": AIPERF}), {}),
    "a unit of times": (table("time,input_tokens,output_tokens", *(f"{k / 5000},{k},1" for k in range(20))), {}),
    "a length of blocks": (records(HASHED), {}),
}


@pytest.mark.parametrize("case", HINTED)
def test_every_hint_leads_on(tmp_path: Path, case: str) -> None:
    content, columns = HINTED[case]
    path = tmp_path / "log"
    path.write_text(content)
    told = run_in_process("trace", "describe", path).stderr
    hints = dict.fromkeys(re.findall(r"(--(?:map|time-unit|block-tokens)) ([\w.=\[\]]+)", told))
    assert hints, told
    options = []
    for option, value in hints:
        options += [option, value.replace("COLUMN", columns.get(value.partition("=")[0], ""))]
    followed = run_in_process("trace", "describe", path, *options)
    assert followed.code == 0, followed.stderr
    assert not re.search("--(map|time-unit|block-tokens)", followed.stderr)


class TestSources:
    """What a replay says of sources, and of what it does not simulate."""

    def test_sources_that_no_rule_knows_are_named_and_can_be_mapped(self, tmp_path: Path) -> None:
        path = FIELD / "mooncake_aliases_ms.jsonl"
        refused = run_in_process("replay", path, "--policy", "gh")
        assert refused.code == 2
        assert (
            "the query types are of the sources 'code', 'conv'; the trace has 'ms'. code=FILE gives" in refused.stderr
        )
        mapped = run_in_process("replay", f"conv={path}", "--policy", "gh")
        assert (mapped.code, "60 requests" in mapped.stdout) == (0, True)

    def test_a_type_without_source_takes_any(self, tmp_path: Path) -> None:
        scenario = tmp_path / "any.toml"
        scenario.write_text(SCENARIO)
        done = run_in_process(
            "replay", FIELD / "mooncake_sessions_delay.jsonl", "--scenario", scenario, "--policy", "gh"
        )
        assert done.code == 0, done.stderr
        assert "34.0% of the input tokens were seen before; prefix caching is not simulated" in done.stdout
