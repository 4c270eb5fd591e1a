"""Bad input on the command line: exit code 2, one clear message on standard error, nothing else, nothing written."""

import csv
import gzip
import json
import os
import re
from importlib import resources

import pytest

from simulator.catalog.configuration import Configuration
from simulator.planning.files import plan_to_dict
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"
LATER = "2023-11-16 18:15:50.9951690,396,109\n"
AZURE = (resources.files("experiments") / "scenarios" / "azure-2023.toml").read_text("utf-8")


@pytest.fixture
def trace(tmp_path):
    """Writes a trace; the name says that it is of source `conv`."""

    def write(text, name="trace_conv.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def scenario(tmp_path):
    def write(old, new, count=-1):
        assert old in AZURE
        path = tmp_path / "mine.toml"
        path.write_text(AZURE.replace(old, new, count), encoding="utf-8")
        return path

    return write


@pytest.fixture
def refused(run_cli, tmp_path):
    """Runs a command that must be refused and returns what standard error says, on one line."""

    def run(*arguments, out="--out", process=False):
        before = sorted(tmp_path.rglob("*"))
        extra = [out, tmp_path / "results" / "run"] if out else []
        done = run_cli(*arguments, *extra, process=process)
        assert done.code == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return re.sub(r"\s+", " ", done.stderr).strip()

    return run


# -- traces


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (f"{GOOD}2023-11-16 18:15:50,396\n", "line 3: expected 3 fields"),
        (f"{GOOD}2023-11-16 18:15:50,-396,109\n", "line 3, column ContextTokens: expected an integer from 0"),
        (f"{GOOD}2023-11-16 18:15:50,396,10.5\n", "line 3, column GeneratedTokens: expected an integer from 0"),
        (f"{GOOD}2023-11-16 18:15:50,396,many\n", "found 'many'"),
        (f"{GOOD}yesterday,396,109\n", "line 3, column TIMESTAMP: expected a time such as 2023-11-16"),
        (f"{LATER}{GOOD}", "line 3, time: expected one not before 2023-11-16 18:15:50.995169000 of line 2"),
    ],
)
def test_a_bad_row(refused, trace, rows, says):
    path = trace(HEADER + rows)
    message = refused("replay", path, "--policy", "gh", "--strict")
    assert message.startswith(f"error: {path}: line 3")
    assert says in message
    assert message.count("error:") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: expected a header, found an empty file"),
        (HEADER, "line 2: expected at least one row after the header, found the end of the file"),
        (
            HEADER.replace("GeneratedTokens", "Output") + GOOD,
            "line 1: found no column for output_tokens in 'TIMESTAMP,",
        ),
        (HEADER.replace("GeneratedTokens", "Output") + GOOD, "name it: --map output_tokens=COLUMN"),
        ("a,b\n1,2\n", "line 1: expected the beginning of a known trace format (tokenfleet, azure-lmm, azure, "),
    ],
)
def test_a_bad_file(refused, trace, text, says):
    path = trace(text)
    message = refused("replay", path, "--policy", "gh")
    assert message.startswith(f"error: {path}: ")
    assert says in message


def test_a_missing_file_and_a_folder(refused, tmp_path):
    assert "none.csv: expected a trace file, found nothing" in refused("replay", tmp_path / "none.csv")
    assert "expected a trace file, found a directory" in refused("replay", tmp_path)


def test_a_pipe(refused, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    message = refused("replay", path, "--policy", "gh")
    assert message == f"error: {path}: expected a file that can be read twice, found a pipe or a device"


TEXT = (HEADER + GOOD + LATER).encode()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("cut.csv.gz", gzip.compress(TEXT)[:-9], "the packed file ends in the middle: it was cut off; fetch it again"),
        ("damaged.csv.gz", gzip.compress(TEXT)[:-8] + b"\0" * 8, "the packed file is damaged: CRC check failed"),
        ("none.csv.gz", gzip.compress(b""), "line 1: expected a header, found an empty file"),
        ("excel.csv", TEXT.decode().encode("utf-16"), "line 1: expected text in UTF-8, found zero bytes, as in UTF-16"),
        ("mac.csv", TEXT.replace(b"\n", b"\r"), "line 1: expected lines that end with LF or CR LF, found CR alone"),
        ("book.xlsx", b"PK\3\4\24\0\6\0", "expected a trace file, found a ZIP archive or a spreadsheet: unpack it"),
        ("rows.json", b'[{"timestamp": 1}]', "line 1: found no column for input_tokens, output_tokens in 'timestamp'"),
    ],
    ids=["cut", "damaged", "none", "excel", "mac", "book", "rows"],  # packed bytes hold the time of packing
)
def test_a_file_of_another_kind(refused, tmp_path, name, data, says):
    path = tmp_path / name
    path.write_bytes(data)
    message = refused("replay", path, "--policy", "gh")
    assert message.startswith(f"error: {path}: {says}")
    assert message.count("error:") == 1


def test_bad_rows_are_written_to_a_file_of_their_own(run_cli, trace, tmp_path):
    path = trace(f"{HEADER}{GOOD}x\n2023-11-16 18:15:50,-1,1\n{LATER}")
    folder = tmp_path / "bad"
    done = run_cli("replay", path, "--policy", "gh", "--on-bad-row", "quarantine", "--quarantine", folder)
    assert done.code == 0
    target = folder / "trace_conv.csv.bad-rows.csv"
    assert str(target) in done.stdout + done.stderr
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["row"], row["text"]) for row in rows] == [
        (str(path), "3", "x"),
        (str(path), "4", "2023-11-16 18:15:50,-1,1"),
    ]


def test_the_problems_of_all_files_are_told(refused, trace):
    first, second = trace(HEADER, "a.csv"), trace("", "b.csv")
    message = refused("replay", first, f"code={second}")
    assert f"error: {first}: line 2" in message
    assert f"error: {second}: line 1" in message


def test_many_bad_rows_are_not_all_shown(refused, trace):
    message = refused("replay", trace(HEADER + GOOD + "x\n" * 500), "--policy", "gh")
    assert message.count("error:") <= 6
    assert "495 more bad rows (of 501 rows in the file)" in message


def test_requests_of_no_query_type(refused, trace):
    message = refused("replay", trace(HEADER + GOOD, "trace_chess.csv"), "--policy", "gh")
    assert "scenario azure-2023: no query type matches 1 of 1 requests" in message
    assert "source 'chess', 374 input and 44 output tokens" in message


def test_bad_rows_can_be_skipped_and_are_counted(run_cli, trace):
    path = trace(f"{HEADER}{GOOD}x\n2023-11-16 18:15:50,-1,1\n{LATER}")
    arguments = ["replay", path, "--policy", "gh", "--on-bad-row", "skip"]
    done = run_cli(*arguments, "--json")
    assert done.code == 0
    result = json.loads(done.stdout)
    assert result["rows_skipped"] == 2
    assert result["runs"][0]["arrived"] == 2
    shown = run_cli(*arguments)
    assert shown.code == 0
    assert f"{path}: skipped 2 of 4 rows; the first: {path}: line 3: expected 3 fields" in shown.stdout


def test_nothing_is_skipped_silently(run_cli, trace):
    done = run_cli("replay", trace(HEADER + GOOD + LATER), "--policy", "gh", "--on-bad-row", "skip", "--json")
    assert "rows_skipped" not in json.loads(done.stdout)


# -- names and options


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--policy", "best"],
            "unknown policy 'best'; known: agh, agh+, dvr, exact, gh, headroom, hf, lpr, milp, robust, static",
        ),
        (["--policy", "gh[-m9]"], "policy 'gh' has no option '-m9'; known: -m1, -m2, -m3"),
        (["--policy", "milp[x]"], "policy 'milp' takes no options, found [x]"),
        (["--policy", "static[best]"], "unknown policy 'best'"),
        (["--policy", "none.py:Best"], "no such file: none.py"),
        (["--scenario", "azure-2022"], "unknown scenario 'azure-2022'; did you mean 'azure-2023'"),
        (["--scenario", "none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["--interval", "0s"], "--interval: '0s' is no duration above zero"),
        (["--interval", "9" * 400], "is no duration above zero"),
        (["--interval", "5 fortnights"], "--interval: '5 fortnights' is no duration above zero"),
        (["--interval=-5m"], "--interval: '-5m' is no duration above zero"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "one"], "--seed"),
        (["--on-bad-row", "ignore"], "--on-bad-row"),
        (["--speed", "fast"], "--speed"),
        (["--plan", "plan.json", "--policy", "gh"], "--plan and --policy exclude each other"),
        (["--plan", "none.json"], "none.json: cannot be read: No such file or directory"),
    ],
)
def test_bad_options_of_replay(refused, arguments, says):
    assert says in refused("replay", *arguments)


def test_all_unknown_policies_are_told(refused):
    message = refused("replay", "--policy", "best", "--policy", "gh", "--policy", "worst")
    assert message.count("error:") == 2
    assert "'best'" in message
    assert "'worst'" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--factors", "1.0,x"], "--factors: 'x' is no factor above zero"),
        (["--factors", "1.0,0"], "--factors: '0' is no factor above zero"),
        (["--factors=-1.5"], "--factors: '-1.5' is no factor above zero"),
        (["--factors", "nan"], "--factors: 'nan' is no factor above zero"),
        (["--factors", "1e999"], "--factors: '1e999' is no factor above zero"),
        (["--factors", ""], "--factors: '' is no factor above zero"),
        (["--duration", "0m"], "--duration: '0m' is no duration above zero"),
        (["--policy", "best"], "unknown policy 'best'"),
        (["--time-limit", "0"], "--time-limit"),
        (["--problem", "none.json"], "none.json: cannot be read"),
        (["none.csv"], "none.csv: expected a trace file, found nothing of this name"),
    ],
)
def test_bad_options_of_stress(refused, arguments, says):
    assert says in refused("stress", *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan"], "--problem"),
        (["plan", "--problem", "none.json"], "none.json: cannot be read"),
        (["plan", "--problem", "none.json", "--time-limit", "-1"], "--time-limit"),
        (["check", "plan.json"], "--problem"),
        (["check", "--problem", "none.json", "plan.json"], "none.json: cannot be read"),
        (["list", "xyz"], "list: 'xyz' cannot be listed; expected one of policies, scenarios, models, gpus, traces"),
        (["list", "polices"], "did you mean 'policies'"),
        (["list"], "Missing argument"),
        (["paly"], "paly"),
        (["--verbose", "3"], "--verbose"),
    ],
)
def test_bad_options_of_other_commands(refused, arguments, says):
    assert says in refused(*arguments, out=None)


def test_the_entry_point_itself(refused, trace):
    """The same in a process of its own: the message is all that the user sees."""
    path = trace(HEADER + GOOD + "x\n")
    message = refused("replay", path, "--policy", "gh", process=True)
    assert (
        message == f"error: {path}: line 3: expected 3 fields (TIMESTAMP,ContextTokens,GeneratedTokens), found 1 in 'x'"
    )


# -- scenarios and plans


def test_a_key_that_does_not_exist(refused, scenario):
    path = scenario("budget_usd_per_h", "budget_usd_per_day")
    message = refused("replay", "--scenario", path)
    assert f"error: {path}: limits.budget_usd_per_day: this key does not exist" in message
    assert f"error: {path}: limits.budget_usd_per_h: Field required" in message


def test_models_none_of_which_fits_a_tier(refused, scenario):
    path = scenario("[catalog]", "[catalog]\nmemory_utilisation = 0.002")
    message = refused("replay", "--scenario", path)
    assert f"error: {path}: catalog: model 'llama-3.1-70b' fits no tier" in message


def test_a_budget_that_rents_nothing(refused, scenario):
    path = scenario("budget_usd_per_h = 25.0", "budget_usd_per_h = 0.1")
    assert f"error: {path}: limits.budget_usd_per_h: 0.1 USD/h is too small" in refused("replay", "--scenario", path)


@pytest.mark.parametrize("policy", ["gh", "agh", "milp", "static[gh]"])
def test_a_budget_too_small_for_the_unmet_caps(refused, scenario, tmp_path, policy):
    path = scenario("budget_usd_per_h = 25.0", "budget_usd_per_h = 1.0")
    path.write_text(path.read_text().replace("error_slo =", "unmet_cap = 0.1\nerror_slo ="))
    message = refused("replay", "--scenario", path, "--policy", policy, "--interval", "30m")
    assert "azure-2023@0s" in message
    assert "budget" in message
    assert "0.5" in message  # half an hour of it


def plan_document(**changes):
    plan = Plan(
        problem="by hand",
        policy="me",
        status=PlanStatus.FEASIBLE,
        cost_usd=1.0,
        bound_usd=None,
        seconds=None,
        deployments=(
            Deployment(
                configuration=Configuration(
                    model="llama-3.1-8b", tier="h100-80-fp8", tensor_parallel=1, pipeline_parallel=1
                ),
                replicas=2,
            ),
        ),
        routing=tuple(
            Route(query_type=name, model="llama-3.1-8b", tier="h100-80-fp8", share=1.0)
            for name in ("code-short", "code-long", "chat-short", "chat-long")
        ),
        unmet=(),
    )
    return {**plan_to_dict(plan), **changes}


@pytest.fixture
def plan_file(tmp_path):
    def write(document):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write


def test_plan_shares_that_do_not_sum_to_one(refused, plan_file, trace):
    document = plan_document()
    document["routing"][0]["share"] = 0.6
    document["unmet"] = [{"query_type": "chat-long", "share": 0.1}]
    message = refused("replay", trace(HEADER + GOOD), "--plan", plan_file(document))
    assert "plan by hand: shares of query type 'code-short' sum to 0.6, expected 1" in message
    assert "plan by hand: shares of query type 'chat-long' sum to 1.1, expected 1" in message
    assert message.count("error:") == 2


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("deployments", 0, "model"), "llama-3.1-8", "deployments[0].model 'llama-3.1-8': did you mean 'llama-3.1-8b'"),
        (("deployments", 0, "tier"), "h100-80-fp9", "deployments[0].tier 'h100-80-fp9': did you mean"),
        (("deployments", 0, "tensor_parallel"), 8, "tensor_parallel 8 and pipeline_parallel 1 is no configuration"),
        (
            ("routing", 0, "tier"),
            "l40s-fp8",
            "routing[0]: llama-3.1-8b on l40s-fp8 is not among the plan's deployments",
        ),
        (("routing", 0, "query_type"), "code-shorts", "routing[0].query_type 'code-shorts': did you mean 'code-short'"),
        (("routing", 0, "share"), 1.5, "plan.json: routing[0].share: Input should be less than or equal to 1"),
    ],
)
def test_plans_that_do_not_fit_the_scenario(refused, plan_file, trace, place, value, says):
    document = plan_document()
    section, index, key = place
    document[section][index][key] = value
    assert says in refused("replay", trace(HEADER + GOOD), "--plan", plan_file(document))


def test_a_good_plan_is_replayed(run_cli, plan_file, trace):
    """The document above is refused for its mistakes only."""
    done = run_cli("replay", trace(HEADER + GOOD), "--plan", plan_file(plan_document()), "--json")
    assert done.code == 0
    assert json.loads(done.stdout)["runs"][0]["served"] == 1


# -- places for results


@pytest.mark.parametrize(
    ("command", "overwrite"),
    [("replay", []), ("replay", ["--overwrite"]), ("stress", []), ("stress", ["--no-resume"])],
)
def test_a_folder_that_is_no_run_is_never_touched(refused, tmp_path, command, overwrite):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    message = refused(command, "none.csv", "--policy", "gh", "--out", folder, *overwrite, out=None)
    assert "none.csv" not in message, "it is refused before any work is done"
    assert f"{folder}: exists and is no run directory of tokenfleet (no run.json)" in message
    assert (folder / "chapter.txt").read_text() == "years of work"


def test_a_file_in_place_of_the_folder(refused, tmp_path, trace):
    place = trace(HEADER + GOOD)
    assert f"{place}: exists and is no run directory" in refused("replay", place, "--out", place, out=None)
    below = place / "run"
    message = refused("replay", place, "--policy", "gh", "--out", below, out=None)
    assert f"{below}: cannot be written" in message


def test_an_earlier_run_is_kept_unless_told_otherwise(refused, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    message = refused("replay", "--policy", "gh", "--out", folder, out=None)
    assert f"{folder}: holds an earlier run: choose another --out, or say --overwrite" in message


def test_a_plan_cannot_replace_a_folder(refused, data_dir, tmp_path):
    folder = tmp_path / "plans"
    folder.mkdir()
    problem = data_dir / "problems" / "6x6x10-seed0.json.gz"
    message = refused("plan", "--problem", problem, "--policy", "gh", "--out", folder, out=None)
    assert f"{folder}: cannot be written: Is a directory" in message
