"""Stress: what each way finds by hand, over a problem file and over the simulation, and the command."""

import json

import pytest

from experiments.studies.tasks import perform

FACTORS = (1.0, 1.1, 1.25, 1.5)


@pytest.fixture
def one(tmp_path):
    """One GPU, 2 h at 1 USD, serves 100 queries an hour of 2 s at 0.01 USD a second; the SLO is 2.5 s."""

    def write(**changes):
        query_type = {
            "name": "chat",
            "arrival_per_h": 100.0,
            "input_tokens": 100.0,
            "output_tokens": 50.0,
            "delay_slo_s": 2.5,
            "error_slo": 0.1,
            "delay_penalty_usd_per_query_s": 0.01,
            "unmet_penalty_usd_per_query": 0.5,
            "unmet_cap": 1.0,
            "token_storage_gb_per_token": 0.0,
        } | changes
        tier = {"memory_gb": 24, "compute_tflops": 100, "compute_efficiency": 0.5, "bandwidth_gb_s": 900}
        problem = {
            "format": "tokenfleet-problem/1",
            "name": "one",
            "period_h": 2.0,
            "budget_usd": 10.0,
            "storage_price_usd_per_gb_h": 0.0,
            "storage_capacity_gb": 100.0,
            "max_replicas": 1,
            "query_types": [query_type],
            "models": [{"name": "m", "parameters_b": 1.0, "weights_gb": 2.0, "kv_mb_per_token": 0.1}],
            "tiers": [{"name": "g", **tier, "price_usd_per_gpu_h": 1.0, "weight_factor": 1.0}],
            "configurations": [{"model": "m", "tier": "g", "tensor_parallel": 1, "pipeline_parallel": 1}],
            "delay_s": [[2.0]],
            "error": [[0.05]],
        }
        path = tmp_path / "one.json"
        path.write_text(json.dumps(problem))
        return path

    return write


def rows_of(path, factors, kinds=("both",), **more):
    asked = {"ground": {"problem": str(path)}, "seed": 0, "policy": "gh", "factors": factors, "inflated": list(kinds)}
    found = perform("stress", {**asked, **more}).rows
    return {(row["way"], row["inflated"], row["factor"]): row for row in found}


def test_a_slower_world_by_hand(one):
    rows = rows_of(one(), [1.0, 1.25, 2.5], ("both", "delay"))
    for factor, delay_s in ((1.0, 2.0), (1.25, 2.5)):
        row = rows["rerouted", "both", factor]
        assert row["delay_penalty_usd"] == pytest.approx(2 * 100 * delay_s * 0.01)
        assert row["cost_usd"] == pytest.approx(2.0 + 2 * 100 * delay_s * 0.01)
        assert row["violation_share"] == 0
    # At 5 s, half of the queries use the whole 2.5 s of mean delay, and the others stay unmet.
    worst = rows["rerouted", "delay", 2.5]
    assert worst["unmet_share"] == worst["violation_share"] == pytest.approx(0.5)
    assert worst["cost_usd"] == pytest.approx(2.0 + 2 * 50 * 5.0 * 0.01 + 2 * 50 * 0.5)


def test_the_plans_own_routing_by_hand(one):
    """It serves all and breaks the mean delay of all above 1.25, and the mean error (0.1) above 2."""
    rows = rows_of(one(), [1.25, 1.3, 2.0, 2.1], ("delay", "error"))
    for factor, late, wrong in ((1.25, 0, 0), (1.3, 1, 0), (2.0, 1, 0), (2.1, 1, 1)):
        assert rows["fixed", "delay", factor]["violation_share"] == late
        assert rows["fixed", "error", factor]["violation_share"] == wrong
        assert rows["fixed", "delay", factor]["unmet_share"] == 0
        assert rows["fixed", "error", factor]["cost_usd"] == pytest.approx(2.0 + 2 * 100 * 2.0 * 0.01)


def test_requests_that_stay_longer_overfill_the_cache(one):
    """In flight are 10,000 / 3600 x 2 s x 0.015 GB at nominal, 300 times as much at last; the cache has 22 GB."""
    path = one(delay_slo_s=1e6, arrival_per_h=10000.0, delay_penalty_usd_per_query_s=0.0)
    rows = rows_of(path, [1.0, 300.0], ("delay",))
    assert rows["fixed", "delay", 1.0]["violation_share"] == 0
    assert rows["fixed", "delay", 300.0]["violation_share"] == 1
    assert 0 < rows["rerouted", "delay", 300.0]["unmet_share"] < 1


def test_no_routing_is_told(one):
    rows = rows_of(one(unmet_cap=0.0), [1.0, 2.5])
    assert rows["rerouted", "both", 1.0]["feasible"]
    assert rows["rerouted", "both", 2.5] == {
        **{name: rows["rerouted", "both", 2.5][name] for name in ("problem", "policy", "seed", "gpus", "status")},
        "way": "rerouted",
        "inflated": "both",
        "factor": 2.5,
        "feasible": False,
    }


def test_no_plan_is_told(one):
    path = one(unmet_cap=0.0, delay_slo_s=1.0)
    (row,) = perform(
        "stress",
        {"ground": {"problem": str(path)}, "seed": 0, "policy": "gh", "factors": [1.0], "inflated": ["both"]},
    ).rows
    assert (row["feasible"], "cost_usd" in row) == (False, False)
    assert row["status"]


def test_more_stress_costs_more():
    ground = {"scenario": "paper-base", "period_h": 24.0}
    for policy in ("gh", "agh"):
        parameters = {"ground": ground, "seed": 0, "policy": policy, "factors": FACTORS, "inflated": ["both"]}
        rows = [row for row in perform("stress", parameters).rows if row["way"] == "rerouted"]
        costs, unmet = ([row[name] for row in rows] for name in ("cost_usd", "unmet_share"))
        assert costs == sorted(costs)
        assert costs[-1] > costs[0]
        assert unmet == sorted(unmet)
        for row in rows:
            parts = ("rent_usd", "storage_usd", "delay_penalty_usd", "unmet_penalty_usd")
            assert sum(row[part] for part in parts) == pytest.approx(row["cost_usd"])


class TestCommand:
    COMMAND = ("stress", "--policy", "gh", "--factors", "1.0,1.5", "--duration", "2m")

    def test_one_json_object_that_is_always_the_same(self, run_cli, tmp_path):
        first = run_cli(*self.COMMAND, "--json", "--jobs", 1)
        assert first.code == 0
        assert run_cli(*self.COMMAND, "--json", "--jobs", 2, "--out", tmp_path / "s").stdout == first.stdout
        found = json.loads(first.stdout)
        assert "seconds" not in first.stdout
        assert "planning" not in first.stdout
        nominal, slow = (row for row in found["rows"] if row["way"] == "simulated" and row["inflated"] == "delay")
        assert nominal["arrived"] == slow["arrived"] > 0
        assert slow["e2e_p50_s"] > nominal["e2e_p50_s"]
        assert slow["violation_share"] >= nominal["violation_share"]

    def test_the_table(self, run_cli):
        shown = run_cli(*self.COMMAND, "--jobs", 1, "--seeds", 2)
        assert shown.code == 0
        assert "±" in shown.stdout
        assert "gh, seed 1" in shown.stderr

    def test_seeds_draw_the_demand_where_no_trace_is_the_demand(self, run_cli):
        done = run_cli("stress", "--scenario", "paper-base", "--policy", "gh", "--factors", "1", "--seeds", 3,
                       "--duration", "1m", "--jobs", 1, "--json")  # fmt: skip
        rows = json.loads(done.stdout)["rows"]
        assert len({row["cost_usd"] for row in rows if row["way"] == "rerouted"}) == 3

    @pytest.mark.slow
    def test_a_second_process_says_the_same(self, run_cli):
        command = ["stress", "--policy", "gh", "--policy", "milp", "--factors", "1.0,1.5", "--duration", "2m", "--json"]
        first, second = run_cli(*command, "--jobs", 1), run_cli(*command, "--jobs", 2, process=True)
        assert first.stdout == second.stdout
        assert first.code == 0
