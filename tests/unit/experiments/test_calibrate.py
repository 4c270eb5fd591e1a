"""`tokenfleet calibrate`: constants come back from steps made with them, and bad measurements are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.calibrate.calibrate import calibrate, toml_of
from experiments.calibrate.measurements import read_measurements
from simulator.catalog import load_catalog
from simulator.delay.roofline import Load, Shape, parts
from simulator.errors import InputError

CATALOG = load_catalog()
H100 = CATALOG.tiers["h100-80-fp16"]
TRUTH = replace(H100.calibration.constants, compute_share=0.6, bandwidth_share=0.7, layer_s=6e-5)
HEADER = "phase,gpu,precision,model,tensor_parallel,batch,query_tokens,context_tokens,step_ms"


def rows(constants=TRUTH, models=("llama-3.1-8b", "llama-3.1-70b"), degrees=(1, 2, 4, 8), noise=0.0, scale=1.0):
    """Steps that take what the form says."""
    draws = np.random.default_rng(0)
    found = [HEADER]
    for name in models:
        for n in degrees:
            shape = Shape.of(CATALOG.models[name], H100, n, 1)
            for batch in (1, 8, 64, 256):
                for context in (128, 2048, 8192):
                    load = Load(
                        prompt_tokens=0, prompt_pairs=0, prompts=0, sequences=batch, context_tokens=batch * context
                    )
                    time_ms = 1e3 * scale * float(parts(constants, shape, load).step_s)
                    time_ms *= np.exp(noise * draws.normal())
                    found.append(f"decode,h100-80,fp16,{name},{n},{batch},1,{context},{time_ms:.6g}")
            for tokens in (128, 512, 2048, 8192):
                load = Load(prompt_tokens=tokens, prompt_pairs=tokens**2 / 2, prompts=1, sequences=0, context_tokens=0)
                time_ms = 1e3 * scale * float(parts(constants, shape, load).step_s)
                time_ms *= np.exp(noise * draws.normal())
                found.append(f"prefill,h100_sxm,bf16,{name},{n},1,{tokens},{tokens},{time_ms:.6g}")
    return found


@pytest.fixture
def written(tmp_path):
    def write(lines, name="steps.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_constants_come_back(written):
    (one,) = calibrate(read_measurements(written(rows())), CATALOG)
    found = one.fitted.constants
    assert found.compute_share == pytest.approx(0.6, rel=0.05)
    assert found.bandwidth_share == pytest.approx(0.7, rel=0.03)
    assert found.layer_s == pytest.approx(6e-5, rel=0.1)
    assert max(one.prefill.mape, one.decode.mape) < 0.01
    assert max(one.unseen_prefill.mape, one.unseen_decode.mape) < 0.02
    assert one.range.tensor_parallel == (1, 2, 4, 8)
    assert one.range.prompt_tokens == 8192


def test_outliers_move_little(written):
    lines = rows(noise=0.02)
    wrong = [f"{line.rsplit(',', 1)[0]},{float(line.rsplit(',', 1)[1]) * 3}" for line in lines[5::20]]
    (clean,) = calibrate(read_measurements(written(lines)), CATALOG)
    (one,) = calibrate(read_measurements(written([*lines, *wrong])), CATALOG)
    assert one.fitted.constants.bandwidth_share == pytest.approx(clean.fitted.constants.bandwidth_share, rel=0.1)


def test_what_the_rows_do_not_tell_is_held_and_told(written, run_cli):
    path = written([HEADER, *[line for line in rows(degrees=(1,)) if line.startswith("decode")]])
    done = run_cli("calibrate", path)
    assert done.code == 0
    assert "communication.gb_per_s" in done.stdout
    assert "no prefill rows: what only prefill depends on is assumed" in done.stdout


@pytest.mark.parametrize(("scale", "told"), [(1e-3, "above the datasheet peak"), (1e3, "are the times in ms?")])
def test_times_in_other_units_are_nonsense_and_not_written(written, run_cli, tmp_path, scale, told):
    done = run_cli("calibrate", written(rows(scale=scale)), "--out", tmp_path / "mine.toml")
    assert done.code == 2
    assert told in done.stderr
    assert not (tmp_path / "mine.toml").exists()


def test_a_file_is_a_catalog(written, tmp_path, run_cli):
    out = tmp_path / "mine.toml"
    test = written(rows(models=("qwen2.5-32b",)), "test.csv")
    done = run_cli("calibrate", written(rows()), "--out", out, "--source", "our lab", "--test", test, "--json")
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    # Names as the test's file first writes them.
    assert [(row["gpu"], row["precision"], row["phase"], row["rows"]) for row in result["test"]] == [
        ("h100-80", "fp16", "prefill", 16),
        ("h100-80", "fp16", "decode", 48),
    ]
    assert all(row["mape"] < 0.03 and row["mape"] <= row["p90"] * 2 for row in result["test"])
    found = load_catalog(out).tiers["h100-80-fp16"].calibration
    assert found.evidence == "measured"
    assert found.source.citation.startswith("our lab")
    assert found.constants.bandwidth_share == pytest.approx(
        result["calibrations"][0]["constants"]["bandwidth_share"], rel=1e-3
    )
    assert run_cli("list", "gpus").code == 0


def test_the_same_rows_give_the_same_file(written):
    path = written(rows(noise=0.03))
    first, second = (toml_of(calibrate(read_measurements(path), CATALOG)) for _ in range(2))
    assert first == second


def test_too_few_rows_are_refused(written):
    with pytest.raises(InputError, match="h100-80-fp16: 2 rows, expected at least 3"):
        calibrate(read_measurements(written(rows()[:3])), CATALOG)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("h100-80", "h1000", "gpu 'h1000' is not in the catalog; did you mean 'h100'"),
        ("fp16", "fp64", "precision 'fp64' is not in the catalog"),
        ("llama-3.1-8b", "llama-9", "model 'llama-9' is not in the catalog"),
        (",fp16,", ",int4,", "h100-80 has no int4 in the catalog"),
    ],
)
def test_unknown_names_are_told_once_with_their_line(written, run_cli, old, new, told):
    path = written([line.replace(old, new) for line in rows()])
    done = run_cli("calibrate", path)
    assert done.code == 2
    assert f"{path}:2: {told}" in done.stderr
    assert done.stderr.count("error:") == 1


def test_a_picture_is_drawn(written, run_cli, tmp_path):
    figure = tmp_path / "residuals.png"
    assert run_cli("calibrate", written(rows(degrees=(1, 2))), "--figure", figure).code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert run_cli("calibrate", written(rows()), "--figure", tmp_path / "x.pdf").code == 2


def test_one_tier_in_two_files_is_refused(written, run_cli):
    done = run_cli("calibrate", written(rows()), written(rows(), "b.csv"))
    assert done.code == 2
    assert "h100-80-fp16: in more than one file" in done.stderr
