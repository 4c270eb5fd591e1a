"""The fitted constants of the shipped catalog are what their commands give (`make calibrations`)."""

from dataclasses import asdict

import pytest

from experiments.calibrate.calibrate import steps_by_tier
from experiments.calibrate.compose import compose, csv_of
from experiments.calibrate.engine_fit import PRIORS, Pricing, fit_engine
from experiments.calibrate.fit import errors, fit
from experiments.calibrate.measurements import read_measurements
from experiments.calibrate.serving_runs import read_runs
from simulator.catalog import load_catalog

CATALOG = load_catalog()


@pytest.fixture(scope="module")
def latency(data_dir):
    folder = data_dir / "latency"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return folder


def assert_shipped(path, *, tiers):
    by_tier = steps_by_tier(read_measurements(path), CATALOG)
    assert sorted(by_tier) == sorted(tiers)
    for name, (tier, steps) in by_tier.items():
        shipped = tier.calibration
        assert shipped.basis is None
        found = fit(steps, tier.interconnect)
        assert not found.nonsense
        wanted = asdict(shipped.constants)
        assert asdict(found.constants) == {
            key: pytest.approx(value, rel=2e-3)
            if key != "communication"
            else {n: {k: pytest.approx(v, rel=2e-3) for k, v in link.items()} for n, link in value.items()}
            for key, value in wanted.items()
        }, name
        # The invariant beside the golden values: the errors that the catalog states are those of its constants.
        relative = abs(errors(shipped.constants, steps))
        for phase, which in (("prefill", steps.prefill), ("decode", ~steps.prefill)):
            stated = getattr(shipped, phase)
            assert stated.rows == which.sum()
            assert stated.mape == pytest.approx(relative[which].mean(), abs=2e-3)


def test_constants_of_composed_steps(latency):
    names = ["a100-80-fp16", "h100-80-fp16", "h100-80-fp8", "l40s-fp16", "l40s-fp8"]
    assert_shipped(latency / "composed_step_times.csv.gz", tiers=names)


def test_constants_of_the_rtx_4090(latency, tmp_path):
    tables = (latency / "llmservingsim_dense.csv.gz", latency / "llmservingsim_attention.csv.gz")
    rows, notes = compose(*tables, CATALOG)
    assert len(notes) == 6
    path = tmp_path / "steps.csv"
    path.write_text(csv_of(rows), encoding="utf-8")
    assert_shipped(path, tiers=["rtx4090-fp16"])
    # One sequence decodes in the time that its weights take at the memory's bandwidth, and up to 1.3 times that.
    first = next(row for row in rows if row["phase"] == "decode" and row["batch"] == 1)
    assert 1 < first["step_ms"] / (1e3 * 15.0 / 1008) < 1.3


@pytest.mark.slow
def test_constants_of_engines(latency):
    runs, left_out = read_runs(latency / "silicon_dense_serving.csv", CATALOG)
    assert not left_out
    for name, shipped in CATALOG.engines.items():
        own = [run for run in runs if run.backend == name]
        pricing = Pricing(own, shipped)
        found = fit_engine(pricing, shipped)
        for key in PRIORS:
            assert getattr(found, key) == pytest.approx(getattr(shipped, key), rel=0.02), (name, key)


def test_every_engine_meets_its_runs(latency):
    runs, _ = read_runs(latency / "silicon_dense_serving.csv", CATALOG)
    for name, most in (("vllm", (0.04, 0.2)), ("trtllm", (0.06, 0.25)), ("sglang", (0.04, 0.2))):
        engine = CATALOG.engines[name]
        pricing = Pricing([run for run in runs if run.backend == name and run.tensor_parallel == 2], engine)
        found = abs(pricing.times(engine) / pricing.measured - 1)
        assert (sorted(found[:, 0])[len(found) // 2], sorted(found[:, 1])[len(found) // 2]) < most
