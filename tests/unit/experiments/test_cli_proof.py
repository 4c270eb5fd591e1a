"""`plan --certificate` and `check --certificate`: from the problem file to the checked proof, and what is refused."""

import gzip
import json

import pytest

PROBLEM = {
    "format": "tokenfleet-problem/1",
    "name": "small",
    "period_h": 24.0,
    "budget_usd": 200.0,
    "storage_price_usd_per_gb_h": 0.001,
    "storage_capacity_gb": 500.0,
    "max_replicas": 4,
    "query_types": [
        {
            "name": name,
            "arrival_per_h": rate,
            "input_tokens": 300.0,
            "output_tokens": 150.0,
            "delay_slo_s": slo_s,
            "error_slo": error,
            "delay_penalty_usd_per_query_s": 1e-5,
            "unmet_penalty_usd_per_query": 0.01,
            "unmet_cap": 1.0,
            "token_storage_gb_per_token": 1e-6,
        }
        for name, rate, slo_s, error in (("chat", 20000.0, 3.0, 0.08), ("code", 9000.0, 1.2, 0.05))
    ],
    "models": [
        {"name": "tiny", "parameters_b": 3.0, "weights_gb": 6.0, "kv_mb_per_token": 0.1},
        {"name": "large", "parameters_b": 20.0, "weights_gb": 40.0, "kv_mb_per_token": 0.2},
    ],
    "tiers": [
        {
            "name": "gpu",
            "memory_gb": 80.0,
            "compute_tflops": 300.0,
            "compute_efficiency": 0.3,
            "bandwidth_gb_s": 2000.0,
            "price_usd_per_gpu_h": 1.5,
            "weight_factor": 1.0,
        }
    ],
    "configurations": [
        {"model": model, "tier": "gpu", "tensor_parallel": n, "pipeline_parallel": 1}
        for model in ("tiny", "large")
        for n in (1, 2)
    ],
    "delay_s": [[1.0, 0.6, 3.5, 2.0], [0.8, 0.5, 2.0, 1.1]],
    "error": [[0.09, 0.09, 0.03, 0.03], [0.07, 0.07, 0.02, 0.02]],
}


@pytest.fixture
def files(tmp_path, run_cli):
    """A problem, its plan and its proof, as a user makes them."""
    problem, plan, proof = (tmp_path / name for name in ("problem.json", "plan.json", "proof.json.gz"))
    problem.write_text(json.dumps(PROBLEM))
    done = run_cli("plan", "--problem", problem, "--policy", "exact", "--out", plan, "--certificate", proof)
    assert done.code == 0, done.stderr
    return problem, plan, proof, done.stdout


def test_a_plan_tells_its_proof(files):
    text = files[3]
    for words in (
        "cost ",
        "bound ",
        "gap 0.0",
        "optimal",
        "configurations 4, ",
        "after fixing",
        "planned in",
        "proof of",
    ):
        assert words in text


def test_the_proof_is_checked_alone_and_with_its_plan(files, run_cli):
    problem, plan, proof, _ = files
    both = run_cli("check", "--problem", problem, plan, "--certificate", proof)
    assert both.code == 0
    assert "accepted: every constraint holds" in both.stdout
    assert "certificate accepted: no plan costs less than" in both.stdout
    assert "above the cheapest there is" in both.stdout
    alone = run_cli("check", "--problem", problem, "--certificate", proof)
    assert alone.code == 0
    assert "every constraint" not in alone.stdout


def test_for_machines(files, run_cli):
    problem, plan, proof, _ = files
    told = json.loads(run_cli("check", "--problem", problem, plan, "--certificate", proof, "--json").stdout)
    assert told["accepted"] is told["certificate"]["accepted"] is True
    assert told["certificate"]["bound_usd"] <= told["cost_usd"] * (1 + 1e-9)
    assert told["violations"] == []
    made = json.loads(run_cli("plan", "--problem", problem, "--policy", "exact", "--json").stdout)
    assert made["effort"]["configurations"] == 4
    assert made["effort"]["root_bound_usd"] <= made["bound_usd"]
    assert "effort" not in json.loads(run_cli("plan", "--problem", problem, "--policy", "gh", "--json").stdout)


def test_a_bound_that_is_too_high_is_refused(files, run_cli, tmp_path):
    problem, plan, proof, _ = files
    told = json.loads(gzip.decompress(proof.read_bytes()))
    told["bound_usd"] *= 1.01
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(told))
    done = run_cli("check", "--problem", problem, plan, "--certificate", forged)
    assert done.code == 1
    assert "certificate refused" in done.stdout
    assert "accepted: every constraint holds" in done.stdout, "the plan is good all the same"


def test_a_proof_of_a_cheaper_world_is_refused(files, run_cli, tmp_path):
    """The same certificate for a problem in which GPUs cost a third less."""
    _, _, proof, _ = files
    cheaper = {**PROBLEM, "tiers": [{**PROBLEM["tiers"][0], "price_usd_per_gpu_h": 1.0}]}
    other = tmp_path / "cheaper.json"
    other.write_text(json.dumps(cheaper))
    done = run_cli("check", "--problem", other, "--certificate", proof)
    assert done.code == 1
    assert "certificate refused" in done.stdout


def test_bad_input_is_refused_before_anything_is_planned(files, run_cli, tmp_path):
    problem, plan, _, _ = files
    wanted = tmp_path / "new.json"
    done = run_cli("plan", "--problem", problem, "--policy", "agh", "--certificate", wanted)
    assert (done.code, done.stdout) == (2, "")
    assert "proves no bound that can be checked" in done.stderr
    assert not wanted.exists()
    nothing = run_cli("check", "--problem", problem)
    assert nothing.code == 2
    assert "nothing to check" in nothing.stderr
    wrong = run_cli("check", "--problem", problem, "--certificate", plan)
    assert wrong.code == 2
    assert "plan.json" in wrong.stderr


def test_an_infeasible_problem_names_what_conflicts(run_cli, tmp_path):
    tight = {**PROBLEM, "budget_usd": 5.0}
    tight["query_types"] = [{**q, "unmet_cap": 0.0} for q in PROBLEM["query_types"]]
    problem = tmp_path / "tight.json"
    problem.write_text(json.dumps(tight))
    done = run_cli("plan", "--problem", problem, "--policy", "exact", "--out", tmp_path / "plan.json")
    assert done.code == 2, "the problem cannot be right"
    assert "infeasible" in done.stderr
    assert "the budget of 5 USD per 24 h" in done.stderr
    assert "must be served" in done.stderr
    assert not (tmp_path / "plan.json").exists()
