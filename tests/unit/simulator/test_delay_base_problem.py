"""Catalog and `constant` model against the base problem of this project (6x6x10-seed0).

The golden rows are carried over from that file (made for this project; delays rounded there to nine digits); the full
comparison needs the file itself.
"""

import gzip
import json
import os
from pathlib import Path

import pytest

from simulator.catalog import (
    Catalog,
    Interconnect,
    LlmModel,
    Tier,
    candidate_configurations,
    load_catalog,
    model_size,
    tier_size,
)
from simulator.delay import ConstantDelay
from simulator.planning.files import read_problem

SHIPPED = load_catalog()

# (model, tier, TP, PP, delay of a query of 512 input and 256 output tokens [s])
GOLDEN = [
    ("llama-3.2-1b", "a6000-fp16", 1, 1, 1.40529406),
    ("llama-3.2-1b", "rtx4090-int4", 8, 4, 1.18530905),
    ("llama-31b", "a6000-fp16", 2, 1, 17.4272868),
    ("llama-31b", "rtx4090-int8", 8, 2, 2.03622496),
    ("llama-3.1-70b", "a6000-int8", 4, 1, 9.90838349),
    ("llama-3.1-70b", "a100-40-int8", 2, 1, 9.78788213),
    ("llama-3.1-70b", "h100-80-fp16", 8, 4, 2.49345074),
]


def base_model(name, parameters_b, weights_gb, kv_mb_per_token):
    """A model of the file, with the heads of the model it stands for (the file has none)."""
    like = SHIPPED.models["qwen3-32b" if name == "llama-31b" else name]
    return LlmModel(
        name=name,
        label=name,
        parameters_b=parameters_b,
        weights_gb=weights_gb,
        kv_bytes_per_token=kv_mb_per_token * 1e6,
        layers=like.layers,
        attention_heads=like.attention_heads,
        kv_heads=like.kv_heads,
        head_dim=like.head_dim,
        hidden_size=like.hidden_size,
        error=like.error,
    )


MODELS = {
    "llama-3.2-1b": base_model("llama-3.2-1b", 1.24, 2.5, 0.0328),
    "llama-31b": base_model("llama-31b", 31.0, 62.0, 0.2),
    "llama-3.1-70b": base_model("llama-3.1-70b", 70.6, 141.0, 0.3277),
}


@pytest.mark.parametrize(("model", "tier", "n", "m", "expected_s"), GOLDEN)
def test_golden_delays(model, tier, n, m, expected_s):
    delay = ConstantDelay().request_delay(MODELS[model], SHIPPED.tiers[tier], n, m)
    assert delay.delay_s(512, 256) == pytest.approx(expected_s, rel=1e-8)


@pytest.fixture(scope="module")
def path():
    folder = os.environ.get("TOKENFLEET_DATA")
    if folder is None:
        pytest.skip("TOKENFLEET_DATA is not set: it names the folder that holds problems/6x6x10-seed0.json.gz")
    path = Path(folder) / "problems" / "6x6x10-seed0.json.gz"
    if not path.exists():
        pytest.skip(f"TOKENFLEET_DATA: {path} does not exist")
    return path


@pytest.fixture(scope="module")
def problem(path):
    return read_problem(path)


@pytest.fixture(scope="module")
def catalog(path):
    """The models and tiers of the file alone, with the interconnects that the project's README states."""
    raw = json.loads(gzip.decompress(path.read_bytes()))
    tiers = {}
    for row in raw["tiers"]:
        gpu, precision = row["name"].rsplit("-", 1)
        nvlink = gpu.startswith(("a100", "h100"))
        tiers[row["name"]] = Tier(
            gpu=gpu,
            precision=precision,
            error_factor=1.0,
            interconnect=Interconnect.NVLINK if nvlink else Interconnect.PCIE,
            hop_s=0.3e-3 if nvlink else 1.5e-3,
            attention_tflops=row["compute_tflops"],
            **row,
        )
    models = {row["name"]: base_model(**row) for row in raw["models"]}
    return Catalog(models=models, tiers=tiers, gpus={}, precisions={}, provenance=())


def test_all_delays_are_reproduced(problem, catalog):
    constant = ConstantDelay()
    for a, c in enumerate(problem.configurations):
        delay = constant.request_delay(
            catalog.models[c.model], catalog.tiers[c.tier], c.tensor_parallel, c.pipeline_parallel
        )
        for i, query in enumerate(problem.query_types):
            assert delay.delay_s(query.input_tokens, query.output_tokens) == pytest.approx(
                problem.delay_s[i, a], rel=1e-8
            ), c


def test_all_configurations_are_reproduced(problem, catalog):
    configurations = candidate_configurations(catalog).configurations
    assert len(configurations) == 342
    assert configurations == problem.configurations


def test_shipped_tiers_and_models_are_those_of_the_base_problem(problem):
    for tier in problem.tiers:
        assert tier_size(SHIPPED.tiers[tier.name]) == tier
    for model in problem.models:
        if model.name != "llama-31b":  # Qwen3-32B stands in its place
            size = model_size(SHIPPED.models[model.name])
            assert size.parameters_b == model.parameters_b
            assert size.weights_gb == pytest.approx(model.weights_gb, rel=0.01)
            assert size.kv_mb_per_token == pytest.approx(model.kv_mb_per_token, rel=0.001)


def test_shipped_errors_are_those_of_the_base_problem(problem):
    for a, c in enumerate(problem.configurations):
        model = SHIPPED.models["qwen3-32b" if c.model == "llama-31b" else c.model]
        assert model.error * SHIPPED.tiers[c.tier].error_factor == pytest.approx(problem.error[0, a], rel=1e-6), c
