"""Steps from a vLLM benchmark run, and what such a run does not tell."""

import json

import pytest

from experiments.calibrate.measurements import read_measurements


def result(clients=4, requests=40, prompt=500, answer=100, step_s=0.02, ttft_s=0.1, **changed):
    """A run in which every tenth gap holds a prompt."""
    gaps = [step_s * (5 if k % 10 == 0 else 1) for k in range(answer - 1)]
    return {
        "model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "max_concurrency": clients,
        "input_lens": [prompt] * requests,
        "output_lens": [answer] * requests,
        "ttfts": [ttft_s] * requests,
        "itls": [gaps] * requests,
    } | changed


@pytest.fixture
def convert(tmp_path, run_cli):
    def run(*contents, arguments=("--gpu", "l40s", "--tensor-parallel", "2")):
        paths = []
        for k, content in enumerate(contents):
            path = tmp_path / f"{k}.json"
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
            paths.append(path)
        out = tmp_path / "steps.csv"
        return run_cli("derive", *paths, *arguments, "--out", out), out

    return run


def test_rows_for_calibrate(convert, run_cli):
    done, out = convert(result(clients=1, requests=5), result(clients=4), result(clients=32, requests=200))
    assert done.code == 0, done.stderr
    assert "5 prefill and 3 decode rows" in done.stdout
    found = read_measurements(out)
    assert found.prefill.tolist() == [True] * 5 + [False] * 3
    assert found.batch.tolist() == [1] * 6 + [4, 32]
    assert found.step_s == pytest.approx([0.1] * 5 + [0.02] * 3)
    assert found.context_tokens.tolist() == [500] * 5 + [550] * 3
    assert set(found.tensor_parallel.tolist()) == {2}
    assert run_cli("calibrate", out).code == 0


def test_what_a_run_does_not_tell_is_said(convert):
    done, out = convert(result(clients=64, requests=500), result(clients=16, requests=20), result())
    assert "answers of 100 tokens are too short for 64 clients" in done.stderr
    assert "no decode row: 20 requests, expected 3 for each client" in done.stderr
    assert "at 16 clients TTFT holds the wait for others" in done.stderr
    assert len(read_measurements(out)) == 1


def test_failed_requests_are_left_out(convert):
    broken = result(output_lens=[100] * 39 + [0], ttfts=[0.1] * 39 + [0.0], itls=[*result()["itls"][:39], []])
    done, out = convert(broken)
    assert "1 failed requests left out" in done.stderr
    assert len(read_measurements(out)) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "expected JSON in UTF-8"),
        ({"avg_latency": 1.0}, "states no lengths"),
        ({"ttfts": []}, "max_concurrency, model_id missing"),
        (result(max_concurrency=0), "max_concurrency: found 0, expected 1 or more"),
        (result(ttfts=[1.0]), "as lists of one length"),
        (result(ttfts=["x"] * 40), "ttfts[0]: found 'x', expected a number of at least 0"),
        (result(model_id="gpt-9"), "model 'gpt-9' is not in the catalog"),
        (result(clients=64, requests=64), "no result tells a step"),
    ],
)
def test_bad_results(convert, content, told):
    done, out = convert(content)
    assert done.code == 2
    assert told in done.stderr
    assert not out.exists()
