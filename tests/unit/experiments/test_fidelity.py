"""`tokenfleet fidelity`: runs that the simulation itself made come back exactly, and bad files are refused."""

import json
from dataclasses import replace

import pytest

from experiments.calibrate.engine_fit import Pricing, fit_engine
from experiments.calibrate.serving_runs import COLUMNS, read_runs, replay_run
from experiments.cli.fidelity import engines_toml
from simulator.catalog import load_catalog

CATALOG = load_catalog()
HEADER = ",".join((*COLUMNS, "backend_version"))
REQUESTS = "gpu,model,tp,max_batched_tokens,input_tokens,output_tokens,arrival_s,first_token_s,last_token_s"


def line(**changed):
    values = {
        "backend": "vllm",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "gpu": "h100_sxm",
        "precision": "",
        "input_tokens": 512,
        "output_tokens": 64,
        "concurrency": 8,
        "tp": 1,
        "ttft_ms": 100.0,
        "tpot_ms": 10.0,
        "backend_version": "0.12",
    } | changed
    return ",".join(str(values[name]) for name in (*COLUMNS, "backend_version"))


@pytest.fixture
def written(tmp_path):
    def write(*lines, header=HEADER):
        path = tmp_path / "runs.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return write


def simulated(written, engines, **changed):
    """Lines whose times are those of the simulation."""
    for run in read_runs(written(*[line(**one) for one in changed["runs"]]), CATALOG)[0]:
        found = replay_run(run, engines[run.backend])
        yield {"ttft_ms": found.ttft_s * 1e3, "tpot_ms": found.tpot_s * 1e3}


def test_what_the_simulation_made_has_no_error(written, run_cli):
    runs = [{"concurrency": c, "tp": n, "backend": b} for c in (1, 8) for n in (1, 4) for b in CATALOG.engines]
    times = list(simulated(written, CATALOG.engines, runs=runs))
    path = written(*[line(**(run | time)) for run, time in zip(runs, times, strict=True)])
    done = run_cli("fidelity", path, "--json")
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["summary"]) == 6
    for row in result["summary"]:
        assert {"backend", "model", "gpu", "tp", "rows", "ttft_median_error", "tpot_median_error"} <= set(row)
        assert row["rows"] == 2
        assert max(row["ttft_median_error"], row["tpot_median_error"]) < 1e-9
    assert "TPOT 0.0% / 0.0% / 0.0%" in run_cli("fidelity", path).stdout


def test_ranged_lengths_where_no_version_is_stated(written):
    (equal, ranged), _ = read_runs(written(line(), line(backend_version="")), CATALOG)
    assert {tuple(map(int, set(column))) for column in equal.lengths()} == {(512,), (64,)}
    inputs, outputs = ranged.lengths()
    assert inputs.min() >= 0.8 * 512 - 1
    assert inputs.max() <= 512
    assert len(set(outputs.tolist())) > 5
    assert ranged.lengths()[0].tolist() == inputs.tolist()


def test_an_engine_is_fitted_to_its_runs(written):
    truth = replace(CATALOG.engines["vllm"], step_s=4e-3, sequence_s=1e-4)
    runs = [{"concurrency": c, "input_tokens": i, "tp": n} for c in (1, 8, 32) for i in (256, 2048) for n in (1, 2)]
    times = list(simulated(written, {"vllm": truth}, runs=runs))
    found, _ = read_runs(written(*[line(**(r | t)) for r, t in zip(runs, times, strict=True)]), CATALOG)
    pricing = Pricing(found, CATALOG.engines["vllm"])
    before = abs(pricing.times(CATALOG.engines["vllm"]) / pricing.measured - 1).mean()
    fitted = fit_engine(pricing, CATALOG.engines["vllm"])
    after = abs(pricing.times(fitted) / pricing.measured - 1).mean()
    assert after < 0.03 < before
    # With one model, time per step and time per layer are one: only their sum can come back.
    per_step = fitted.step_s + 32 * fitted.layer_s
    assert per_step == pytest.approx(truth.step_s + 32 * truth.layer_s, rel=0.1)


def test_fitted_engines_are_a_catalog(written, run_cli, tmp_path):
    path = written(*[line(concurrency=c, tpot_ms=8 + c) for c in (1, 4, 16)])
    out = tmp_path / "engines.toml"
    done = run_cli("fidelity", path, "--fit", out)
    assert done.code == 0, done.stderr
    found = load_catalog(out).engines
    assert found["vllm"] != CATALOG.engines["vllm"]
    assert replace(found["trtllm"]) == CATALOG.engines["trtllm"]
    again = tmp_path / "again.toml"
    again.write_text(engines_toml(CATALOG.engines.values(), "test"), encoding="utf-8")
    assert load_catalog(again).engines["sglang"].scheduling == CATALOG.engines["sglang"].scheduling


def test_runs_that_do_not_fit_are_counted(written, run_cli):
    big = line(model="meta-llama/Llama-3.1-70B", precision="fp8", input_tokens=60_000)
    done = run_cli("fidelity", written(line(), big), "--json")
    result = json.loads(done.stdout)
    assert [row["line"] for row in result["not_replayed"]] == [3]
    assert sum(row["rows"] for row in result["summary"]) == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"concurrency": 0}, "concurrency: found '0', expected a whole number above 0"),
        ({"tpot_ms": "nan"}, "tpot_ms: found 'nan', expected a number above 0"),
        ({"input_tokens": 1.5}, "input_tokens: found '1.5', expected a whole number above 0"),
    ],
)
def test_bad_rows(written, run_cli, changed, told):
    path = written(line(), line(**changed))
    done = run_cli("fidelity", path)
    assert done.code == 2
    assert f"{path}:3: {told}" in done.stderr


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"backend": "nim"}, "backend 'nim' is not in the catalog; expected one of"),
        ({"gpu": "h1000"}, "gpu 'h1000' is not in the catalog"),
        ({"model": "gpt-9"}, "model 'gpt-9' is not in the catalog"),
        ({"precision": "int3"}, "precision 'int3' is not in the catalog"),
        ({"precision": "nvfp4"}, "h100-80 has no fp4 in the catalog"),
    ],
)
def test_what_the_catalog_lacks_is_left_out_and_told(written, run_cli, changed, told):
    path = written(line(), line(**changed), line(**changed))
    done = run_cli("fidelity", path, "--json")
    assert done.code == 0
    assert f"2 runs left out (line 3, 4): {told}" in done.stderr
    result = json.loads(done.stdout)
    assert [row["line"] for row in result["not_replayed"]] == [3, 4]
    assert sum(row["rows"] for row in result["summary"]) == 1
    done = run_cli("fidelity", written(line(**changed)))
    assert done.code == 2
    assert f"{path}:2: {told}" in done.stderr


def test_bad_files(written, run_cli, tmp_path):
    assert "columns" in run_cli("fidelity", written("1,2", header="a,b")).stderr
    assert "there is no row" in run_cli("fidelity", written()).stderr
    assert run_cli("fidelity", tmp_path / "nowhere.csv").code == 2
    path = written("RTX4090,meta-llama/Llama-3.1-8B,1,2048,100,10,5,4,6", header=REQUESTS)
    assert "expected arrival_s < first_token_s <= last_token_s" in run_cli("fidelity", path).stderr
    assert run_cli("fidelity", path, "--hold-out").code == 2


def test_requests_of_one_instance(written, run_cli):
    rows = [f"RTX4090,meta-llama/Llama-3.1-8B,1,2048,100,{1 + 10 * k},{k},{k + 0.05},{k + 1}" for k in range(20)]
    done = run_cli("fidelity", written(*rows, header=REQUESTS), "--json")
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    (row,) = result["summary"]
    assert (row["backend"], row["gpu"], row["tp"], row["rows"]) == ("vllm", "RTX4090", 1, 20)
    assert row["ttft_median_error"] > 0
    assert [(one["what"], one["percentile"]) for one in result["distributions"]][:3] == [
        ("ttft_s", 50),
        ("ttft_s", 90),
        ("ttft_s", 99),
    ]


def test_a_real_vllm_is_met(data_dir, run_cli):
    done = run_cli("fidelity", data_dir / "latency" / "llmservingsim_vllm_requests_rtx4090.csv", "--json")
    (row,) = json.loads(done.stdout)["summary"]
    assert row["rows"] == 300
    assert max(row["ttft_median_error"], row["tpot_median_error"], row["e2e_median_error"]) < 0.12
