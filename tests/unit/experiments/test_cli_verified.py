"""`tokenfleet plan --verify simulate` and `check --against-simulation`: good input, and how much bad input is told."""

import json
import math
import re

import numpy as np
import pytest

from experiments.replay.controller import build_problem, nominal_problem
from experiments.scenario.demand import expected_demand
from experiments.scenario.scenario import load_scenario
from experiments.verify.draws import draw_of, whole
from experiments.verify.sample import Sample
from policies.checking.plan import check
from simulator.planning.files import read_plan
from tests.verify_samples import FAST, trace_of, write_small
from traces.source import TraceInMemory

QUICK = ("--draws", "5", "--effort", "2")


def flat(text):
    return re.sub(r"\s+", " ", text).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("verified")


@pytest.fixture(scope="module")
def scenario(folder):
    return write_small(folder)


def write_trace(path, count=2400, span_s=1200.0, seed=0):
    """In the Azure form: a third of the prompts is long."""
    draw = np.random.default_rng(seed)
    times_s = np.sort(np.round(draw.uniform(0, span_s, count), 4))
    long = draw.random(count) < 0.33
    rows = [
        f"2023-11-16 18:{int(t // 60):02d}:{t % 60:07.4f}000,{2500 if is_long else 600},{60 if is_long else 120}"
        for t, is_long in zip(times_s.tolist(), long.tolist(), strict=True)
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trace(folder):
    return write_trace(folder / "small_any.csv")


@pytest.fixture(scope="module")
def plan_file(folder):
    return folder / "plan.json"


@pytest.fixture(scope="module")
def verified(run_cli, scenario, trace, plan_file):
    """The plan of a trace, as JSON and as a file."""
    return run_cli("plan", trace, "--scenario", scenario, "--verify", "simulate", *QUICK, "--json", "--out", plan_file)


class TestVerified:
    def test_standard_output_is_one_object(self, verified):
        assert verified.code == 0, verified.stderr
        found = json.loads(verified.stdout)
        told = found["verified"]
        assert (told["failure"], told["fresh_draws"], told["confidence"]) == ("", 5, 0.95)
        assert told["held_share"] == pytest.approx((0.025 / 3) ** (1 / 5))
        assert {(slo["query_type"], slo["measure"]) for slo in told["slos"]} == {
            (name, measure) for name in ("chat", "long") for measure in ("ttft_s", "tpot_s", "e2e_s")
        }
        for slo in told["slos"]:
            assert slo["percentile"] == "p95"
            assert slo["fresh_worst"] <= slo["may_be_late"] + 1e-9
        assert all(math.isfinite(row["planned_load"]) for row in told["agreement"])

    def test_the_same_words_give_the_same_object(self, run_cli, verified, scenario, trace):
        again = run_cli("plan", trace, "--scenario", scenario, "--verify", "simulate", *QUICK, "--json")
        first, second = (json.loads(done.stdout) for done in (verified, again))
        assert first.pop("seconds") > 0
        assert second.pop("seconds") > 0
        assert first == second

    def test_the_file_is_the_plan_and_can_be_replayed(self, run_cli, verified, scenario, trace, plan_file):
        plan, told = read_plan(plan_file), json.loads(verified.stdout)
        assert plan.cost_usd == told["cost_usd"]
        assert plan.policy == told["policy"] == "agh+"
        done = run_cli("replay", trace, "--scenario", scenario, "--plan", plan_file, "--json")
        assert done.code == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        assert run["arrived"] == run["served"] == 2400
        assert run["slo_violations"] <= 3 * 0.05 * 2400
        assert run["cost_usd"] == told["verified"]["replayed"]["cost_usd"]

    def test_while_requests_arrive_it_costs_what_it_is_verified_at(self, run_cli, scenario):
        """Nothing is held out of the scenario's own arrivals, so that both figures are of the same requests."""
        done = run_cli("plan", "--scenario", scenario, "--verify", "simulate", *QUICK, "--json")
        told = json.loads(done.stdout)["verified"]
        all_of_it = told["replayed"]
        serving_usd = all_of_it["cost_usd"] - all_of_it["start_up_usd"] - all_of_it["drain_usd"]
        assert serving_usd * 3600 / all_of_it["horizon_s"] == pytest.approx(told["cost_usd_per_h"])
        assert all_of_it["start_up_usd"] > 0
        assert all_of_it["drain_usd"] >= 0

    def test_for_people_it_is_told_in_words_and_tables(self, run_cli, scenario, folder):
        target = folder / "told.json"
        done = run_cli("plan", "--scenario", scenario, "--verify", "simulate", *QUICK, "--out", target)
        assert done.code == 0, done.stderr
        text = flat(done.stdout)
        assert "every SLO held on 5 of 5 fresh draws" in text
        assert "Requests beyond each limit [%]" in text
        assert "Planned against simulated" in text
        assert re.search(r"of all these arrivals costs [\d.]+ USD: [\d.]+ in the 5 min", text)
        assert f"tokenfleet replay --plan {target}" in text
        assert target.exists()

    def test_the_percentile_asked_for_is_the_one_that_is_held(self, run_cli, scenario):
        done = run_cli("plan", "--scenario", scenario, "--verify", "simulate", *QUICK, "--percentile", "p75", "--json")
        assert {(slo["percentile"], slo["may_be_late"]) for slo in json.loads(done.stdout)["verified"]["slos"]} == {
            ("p75", 0.25)
        }

    def test_percentiles_of_the_scenario_prevail(self, run_cli, tmp_path):
        stated = write_small(
            tmp_path, ('name = "chat"', 'name = "chat"\npercentile_slos = { ttft_s = { p90 = 1.0, p50 = 0.9 } }')
        )
        done = run_cli("plan", "--scenario", stated, "--verify", "simulate", *QUICK, "--json")
        slos = json.loads(done.stdout)["verified"]["slos"]
        chat = [(slo["measure"], slo["percentile"]) for slo in slos if slo["query_type"] == "chat"]
        assert chat == [("ttft_s", "p50"), ("ttft_s", "p90")]
        assert len(slos) == 2 + 3


@pytest.fixture(scope="module")
def poor(tmp_path_factory):
    """Ten times the chats, and a budget for one replica of the slow tier."""
    return write_small(
        tmp_path_factory.mktemp("poor"),
        ("arrival_per_h = 7200", "arrival_per_h = 72000"),
        ("budget_usd_per_h = 30.0", "budget_usd_per_h = 0.9"),
    )


class TestNothingAccepted:
    @pytest.mark.parametrize("json_", [[], ["--json"]])
    def test_exit_code_1_and_no_file(self, run_cli, poor, tmp_path, json_):
        done = run_cli("plan", "--scenario", poor, "--verify", "simulate", *QUICK, "--out", tmp_path / "p.json", *json_)
        assert done.code == 1
        assert "failed: no plan was accepted, of " in flat(done.stderr)
        assert "may be)" in flat(done.stderr)
        assert not (tmp_path / "p.json").exists()
        if json_:
            told = json.loads(done.stdout)["verified"]
            assert told["failure"].startswith("no plan was accepted")
            assert told["alternatives"]
        else:
            assert "Instead of headroom" in done.stdout


class TestPlain:
    """Plans of scenarios and of traces without simulations are those of the problem that they state."""

    def test_of_a_scenario(self, run_cli, scenario, tmp_path):
        done = run_cli("plan", "--scenario", scenario, "--policy", "gh", "--out", tmp_path / "plan.json")
        assert done.code == 0, done.stderr
        assert check(nominal_problem(load_scenario(str(scenario))), read_plan(tmp_path / "plan.json")).accepted

    def test_of_a_trace(self, run_cli, scenario, trace, tmp_path):
        """Its demand is that of the trace, 2400 requests in 20 minutes, and not what the scenario expects."""
        done = run_cli("plan", trace, "--scenario", scenario, "--policy", "gh", "--out", tmp_path / "plan.json")
        assert done.code == 0, done.stderr
        loaded, plan = load_scenario(str(scenario)), read_plan(tmp_path / "plan.json")
        nominal = build_problem(loaded, expected_demand(loaded.types), name="n", period_h=1.0)
        assert not check(nominal, plan).accepted, "the cost is another one"
        rows = np.array([line.split(",")[1:] for line in trace.read_text().splitlines()[1:]], dtype=float)
        times_s = [60 * int(line[14:16]) + float(line[17:26]) for line in trace.read_text().splitlines()[1:]]
        given = trace_of(np.array(times_s) - times_s[0], rows[:, 0], rows[:, 1])
        demand = Sample.of(draw_of(loaded, whole(TraceInMemory(given)), "the trace", 0)).demand(loaded)
        assert demand.arrival_per_h.sum() == pytest.approx(7200, rel=0.01)
        assert check(build_problem(loaded, demand, name="t", period_h=1.0), plan).accepted


def test_a_replay_counts_the_percentiles_of_the_scenario(run_cli, tmp_path, trace):
    """One that is easy and one that no request can keep."""
    stated = "percentile_slos = { ttft_s = { p90 = 30.0 }, e2e_s = { p95 = 30.0 }, tpot_s = { p50 = 1e-5 } }"
    path = write_small(tmp_path, ('name = "chat"', f'name = "chat"\n{stated}'))
    arguments = ("replay", trace, "--scenario", path, "--policy", "gh")
    (run,) = json.loads(run_cli(*arguments, "--json").stdout)["runs"]
    assert [(row["measure"], row["held"]) for row in run["percentile_slos"]] == [
        ("ttft_s", True),
        ("tpot_s", False),
        ("e2e_s", True),
    ]
    text = flat(run_cli(*arguments).stdout)
    assert re.search(r"percentile SLOs broken.{1,5}1 of 3", text)
    assert re.search(r"p50 TPOT 1e-05 s.*? s, 100\.0% beyond", text)
    assert re.search(r"p90 TTFT 30 s.*? s, 0\.0% beyond", text)


class TestAgainstSimulation:
    def test_json(self, run_cli, verified, scenario, trace, plan_file):
        assert verified.code == 0
        done = run_cli("check", plan_file, "--against-simulation", "--scenario", scenario, "--trace", trace, "--json")
        assert done.code == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["accepted"] is True
        assert sum(row["requests"] for row in told["deployments"]) == 2400
        assert told["mean_off"]["load"] < 0.03
        assert told["mean_off"]["tpot_s"] < 0.05

    def test_words_and_the_arrivals_of_the_scenario(self, run_cli, verified, scenario, plan_file):
        assert verified.code == 0
        done = run_cli("check", plan_file, "--against-simulation", "--scenario", scenario)
        assert done.code == 0, done.stderr
        text = flat(done.stdout)
        assert "Planned for these arrivals, against simulated" in text
        assert "mean over requests: off in load by" in text


# -- bad input


@pytest.fixture
def refused(run_cli, tmp_path):
    """Runs a command that must be refused, and gives what standard error says."""

    def run(*arguments, out=True):
        before = sorted(tmp_path.rglob("*"))
        extra = ["--out", tmp_path / "plan.json"] if out else []
        done = run_cli(*arguments, *extra)
        assert done.code == 2, done.stdout + done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return flat(done.stderr)

    return run


@pytest.mark.parametrize("percentile", ["p30", "p101", "p100", "95", "median"])
def test_what_is_no_percentile(refused, scenario, percentile):
    message = refused("plan", "--scenario", scenario, "--verify", "simulate", "--percentile", percentile)
    assert message == f"error: --percentile: {percentile!r} is no percentile from p50 to p99.9, as in p95"


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ("e2e_s = { p50 = 4.0, p99 = 2.0 }", "p99 = 2 s is below p50 = 4 s: they contradict each other"),
        ("ttft_s = { p95 = 2.0 }, e2e_s = { p95 = 1.0 }", "e2e_s: p95 = 1 s is below that of ttft_s = 2 s"),
        ("e2e_s = { p30 = 4.0 }", "e2e_s: 'p30' is no percentile"),
        ("tps_s = { p95 = 4.0 }", "query_types[0].percentile_slos.tps_s: this key does not exist"),
        ("e2e_s = { p95 = 0.0 }", "query_types[0].percentile_slos.e2e_s.p95: Input should be greater than 0"),
    ],
)
def test_contradictory_percentiles_in_a_scenario(refused, tmp_path, stated, says):
    path = write_small(tmp_path, ('name = "chat"', f'name = "chat"\npercentile_slos = {{ {stated} }}'))
    message = refused("plan", "--scenario", path, "--verify", "simulate")
    assert message.startswith(f"error: {path}: query_types[0].percentile_slos")
    assert says in message
    assert message.count("error:") == 1


def test_a_limit_below_the_physical_floor(refused, tmp_path):
    path = write_small(tmp_path, ("ttft_slo_s = 1.0", "ttft_slo_s = 0.016"))
    message = refused("plan", "--scenario", path, "--verify", "simulate")
    assert message.count("error:") == 1
    assert "query type 'chat': p95 TTFT of 0.016 s (with the guard of 0.98: 0.01568 s) cannot be met by any" in message
    assert f"alone on the fastest, llama-3.1-8b on {FAST} TP1 PP1, p95 of its requests is 0.0" in message


@pytest.mark.parametrize(("percentile", "needed"), [("p95", "59"), ("p99", "299"), ("p99.9", "2,995")])
def test_a_trace_too_short_for_the_percentile(refused, scenario, folder, percentile, needed):
    path = write_trace(folder / "short_any.csv", count=60, span_s=300.0)
    message = refused("plan", path, "--scenario", scenario, "--verify", "simulate", "--percentile", percentile)
    assert f"{percentile} needs {needed} to be told from luck: it would take some " in message
    assert "query type 'chat' has " in message
    assert "query type 'long' has " in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to plan: give --problem FILE, or a trace, --scenario NAME or both"),
        (["--problem", "none.json", "--verify", "simulate"], "--problem states all there is to plan: it excludes"),
        (["--problem", "none.json", "--scenario", "azure-2023"], "--problem states all there is to plan: it excludes"),
        (["none.csv", "--problem", "none.json"], "--problem states all there is to plan: it excludes"),
        (["none.csv", "--verify", "simulate"], "none.csv: expected a trace file, found nothing"),
        (["--scenario", "paper", "--verify", "simulate"], "--verify: scenario paper has no queues to verify"),
        (["--scenario", "azure-2022", "--verify", "simulate"], "unknown scenario 'azure-2022'; did you mean"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--policy", "best"], "unknown policy 'best'"),
        (
            ["--scenario", "azure-2023", "--verify", "simulate", "--certificate", "proof.json"],
            "--certificate: a verified plan proves no bound that can be checked; exact does",
        ),
        (["--scenario", "azure-2023", "--verify", "guess"], "--verify"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--guess", "luck"], "--guess"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--guard", "0.4"], "--guard"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--guard", "1.1"], "--guard"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--draws", "1"], "--draws"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--hold-out", "0.95"], "--hold-out"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--effort", "0"], "--effort"),
        (["--scenario", "azure-2023", "--verify", "simulate", "--delay-model", "x"], "--delay-model: 'x' is unknown"),
    ],
)
def test_bad_options_of_plan(refused, arguments, says):
    message = refused("plan", *arguments)
    assert says in message
    assert message.count("error:") <= 1


def test_a_place_in_a_folder_that_does_not_exist(refused, scenario, tmp_path):
    target = tmp_path / "none" / "plan.json"
    message = refused("plan", "--scenario", scenario, "--verify", "simulate", "--out", target, out=False)
    assert message == f"error: --out: {target}: there is no folder {target.parent}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--against-simulation"], "nothing to check: give a PLAN, a --certificate, or both"),
        (
            ["--against-simulation", "--certificate", "proof.json", "--problem", "none.json"],
            "--against-simulation needs a PLAN to simulate",
        ),
        (["PLAN", "--against-simulation", "--certificate", "proof.json"], "--problem is missing"),
        (["PLAN", "--trace", "none.csv"], "--problem is missing"),
        (["PLAN", "--problem", "none.json", "--trace", "none.csv"], "--trace is for --against-simulation"),
        (["PLAN", "--against-simulation", "--trace", "none.csv"], "none.csv: expected a trace file, found nothing"),
        (["PLAN", "--against-simulation", "--scenario", "none"], "unknown scenario 'none'"),
        (["PLAN", "--against-simulation", "--delay-model", "x"], "--delay-model: 'x' is unknown"),
        (["none.json", "--against-simulation"], "none.json: cannot be read"),
    ],
)
def test_bad_options_of_check(refused, verified, plan_file, arguments, says):
    assert verified.code == 0
    message = refused("check", *(plan_file if item == "PLAN" else item for item in arguments), out=False)
    assert says in message
    assert message.count("error:") == 1


def test_a_plan_of_another_scenario(refused, verified, plan_file):
    message = refused("check", plan_file, "--against-simulation", "--scenario", "azure-2023", out=False)
    assert "plan small@verified: routing[0].query_type 'chat': did you mean" in message
    assert "shares of query type 'chat-short' sum to 0, expected 1" in message
