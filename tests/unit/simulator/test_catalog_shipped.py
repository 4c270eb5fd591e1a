"""The shipped catalog: completeness, physics that any correct catalog obeys, and the values that others rely on."""

import pickle

import pytest

from simulator.catalog import Interconnect, SourceKind, load_catalog, model_size, tier_size

CATALOG = load_catalog()

# KV bytes per token at FP16 as the model cards imply; the 11B counts its 32 self-attention layers of 40.
KV_BYTES = {
    "llama-3.2-1b": 32_768,
    "llama-3.2-3b": 114_688,
    "llama-3.1-8b": 131_072,
    "llama-3.2-11b-vision": 131_072,
    "qwen3-32b": 262_144,
    "llama-3.1-70b": 327_680,
}
PRECISIONS = {
    "a6000": ["fp16", "int8", "int4"],
    "rtx4090": ["fp16", "fp8", "int8", "int4"],
    "l4": ["fp16", "fp8", "int8"],
    "l40s": ["fp16", "fp8", "int8", "int4"],
    "a100-40": ["fp16", "int8", "int4"],
    "a100-80": ["fp16", "int8", "int4"],
    "h100-80": ["fp16", "fp8", "int8"],
    "h200-141": ["fp16", "fp8", "int8"],
    "b200-180": ["fp16", "fp8", "int8", "fp4"],
    "gb200-186": ["fp16", "fp8", "int8", "fp4"],
}


def test_tiers_are_the_precisions_that_the_hardware_has():
    assert list(CATALOG.tiers) == [f"{gpu}-{precision}" for gpu, names in PRECISIONS.items() for precision in names]


def test_kv_per_token_follows_from_the_architecture():
    assert {name: CATALOG.models[name].kv_bytes_per_token for name in KV_BYTES} == KV_BYTES
    for model in CATALOG.models.values():
        if model.name != "llama-3.2-11b-vision":
            assert model.kv_bytes_per_token == 4 * model.layers * model.kv_heads * model.head_dim


def test_embeddings_and_layers_are_all_parameters():
    model = CATALOG.models["llama-3.1-8b"]  # 128,256 x 4096 in the head and as many in the embeddings
    assert model.head_parameters_b == pytest.approx(0.5253, abs=1e-4)
    assert model.layer_parameters_b == pytest.approx(8.03 - 2 * 0.5253, abs=1e-3)
    tied = CATALOG.models["llama-3.2-1b"]
    assert tied.layer_parameters_b == pytest.approx(tied.parameters_b - tied.head_parameters_b)
    # Two matrices of attention's width, two of the keys' and values', and three of a gated MLP of width 14,336.
    by_hand = 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) / 1e9
    assert model.layer_parameters_b == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize("model", CATALOG.models.values(), ids=lambda model: model.name)
def test_parameters_are_of_the_order_of_the_architecture(model):
    # A transformer block has about 12 hidden^2 parameters (gated MLPs and grouped queries shift it by less than 1.5x).
    blocks_b = 12 * model.layers * model.hidden_size**2 / 1e9
    assert blocks_b / 1.6 < model.layer_parameters_b < blocks_b * 1.7
    assert model.weights_gb == 2 * model.parameters_b


def test_smaller_formats_are_not_slower_and_hops_follow_the_interconnect():
    for gpu in CATALOG.gpus.values():
        assert list(gpu.peak_tflops.values()) == sorted(gpu.peak_tflops.values()), gpu.name
        assert gpu.hop_s == (0.3e-3 if gpu.interconnect is Interconnect.NVLINK else 1.5e-3), gpu.name


def test_tier_is_its_gpu_at_its_precision():
    tier = CATALOG.tiers["h100-80-fp8"]
    assert (tier.gpu, tier.precision, tier.memory_gb, tier.bandwidth_gb_s) == ("h100-80", "fp8", 80, 3350)
    assert (tier.compute_tflops, tier.weight_factor, tier.compute_efficiency) == (1979, 0.5, 0.08)
    size = tier_size(tier)
    assert (size.name, size.compute_tflops, size.price_usd_per_gpu_h) == ("h100-80-fp8", 1979, 2.5)


def test_model_size_states_megabytes():
    size = model_size(CATALOG.models["llama-3.1-8b"])
    assert (size.parameters_b, size.weights_gb) == (8.03, 16.06)
    assert size.kv_mb_per_token == pytest.approx(0.131072)


def test_every_value_has_a_unit_and_a_source():
    stated = {(value.section, value.block, value.field): value for value in CATALOG.provenance}
    assert len(stated) == len(CATALOG.provenance)
    for gpu, names in PRECISIONS.items():
        fields = {field for section, block, field in stated if (section, block) == ("gpu", gpu)}
        others = {"memory", "bandwidth", "interconnect", "link_bandwidth", "hop_latency", "price"}
        assert fields == {*others, *(f"peak.{n}" for n in names)}
    assert all(value.unit and value.source.citation for value in CATALOG.provenance)
    assert stated["gpu", "h100-80", "memory"].source.kind is SourceKind.DATASHEET
    assert stated["model", "llama-3.1-8b", "weights"].source.kind is SourceKind.DERIVED


def test_what_nobody_measured_is_labelled_assumed():
    assumed = {"price", "hop_latency", "error", "error_factor", "compute_efficiency"}
    kinds = {value.source.kind for value in CATALOG.provenance if value.field in assumed}
    assert kinds == {SourceKind.ASSUMED}


def test_catalog_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(CATALOG)) == CATALOG
