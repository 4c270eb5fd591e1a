"""What fits into GPU memory, and which configurations follow."""

from dataclasses import replace

import pytest

from simulator.catalog import candidate_configurations, fits, kv_capacity_tokens, load_catalog
from simulator.errors import InputError

CATALOG = load_catalog()
BIG = CATALOG.models["llama-3.1-70b"]
SMALL = CATALOG.models["llama-3.1-8b"]


def degrees(candidates):
    return [(c.tensor_parallel, c.pipeline_parallel) for c in candidates.configurations]


def test_weights_fit_up_to_the_stated_share_of_memory():
    tier = CATALOG.tiers["h100-80-fp16"]
    assert not fits(BIG, tier, 1, 1)  # 141.2 GB
    assert fits(BIG, tier, 2, 1)  # 2 x 80 x 0.9 = 144 GB
    assert fits(BIG, tier, 1, 2)
    assert not fits(BIG, tier, 2, 1, memory_utilisation=0.88)  # 140.8 GB
    assert fits(BIG, CATALOG.tiers["h100-80-fp8"], 1, 1)  # half the weights: 70.6 of 72 GB
    exact = replace(BIG, weights_gb=144.0)
    assert fits(exact, tier, 2, 1)
    assert kv_capacity_tokens(exact, tier, 2, 1) == 0


def test_kv_capacity_by_hand():
    # (2 x 80 GB x 0.9 - 16.06 GB) / 131,072 B = 976,104.7
    assert kv_capacity_tokens(SMALL, CATALOG.tiers["h100-80-fp16"], 2, 1) == 976_104
    assert kv_capacity_tokens(SMALL, CATALOG.tiers["h100-80-fp16"], 1, 2) == 976_104
    # FP8 halves the weights, not the cache: (2 x 72 - 8.03) / 131,072 B
    assert kv_capacity_tokens(SMALL, CATALOG.tiers["h100-80-fp8"], 2, 1) == 1_037_368
    assert kv_capacity_tokens(BIG, CATALOG.tiers["h100-80-fp16"], 1, 1) == 0


def test_of_as_many_gpus_only_the_highest_tp_is_kept():
    catalog = CATALOG.select(models=["llama-3.1-70b"], tiers=["a6000-fp16"])
    assert degrees(candidate_configurations(catalog)) == [(4, 1), (8, 1), (8, 2), (8, 4)]
    assert degrees(candidate_configurations(catalog, tensor_parallel=(1, 2))) == [(2, 2), (2, 4)]
    assert degrees(candidate_configurations(catalog, tensor_parallel=(8,), pipeline_parallel=(2, 1))) == [
        (8, 1),
        (8, 2),
    ]


def test_tp_divides_the_attention_heads():
    odd = replace(SMALL, attention_heads=12)
    catalog = replace(CATALOG.select(tiers=["h100-80-fp16"]), models={"odd": odd})
    assert degrees(candidate_configurations(catalog)) == [(1, 1), (2, 1), (4, 1), (4, 2), (4, 4)]
    with pytest.raises(InputError, match=r"12 attention heads are not divisible by any .* degree of \(5, 8\)"):
        candidate_configurations(catalog, tensor_parallel=(5, 8))


def test_models_that_fit_nowhere_are_all_named_with_need_and_room():
    catalog = CATALOG.select(
        models=["llama-3.2-1b", "qwen3-32b", "llama-3.1-70b"], tiers=["rtx4090-fp16", "rtx4090-int4"]
    )
    assert not candidate_configurations(catalog).skipped
    scarce = {"tensor_parallel": (1,), "pipeline_parallel": (1,), "memory_utilisation": 0.6}
    found = candidate_configurations(catalog, **scarce)
    assert {configuration.model for configuration in found.configurations} == {"llama-3.2-1b"}
    large = catalog.select(models=["qwen3-32b", "llama-3.1-70b"])
    with pytest.raises(InputError) as caught:
        candidate_configurations(large, **scarce)
    assert found.skipped == caught.value.problems, "those that fit nowhere are skipped as long as another fits"
    qwen, llama = caught.value.problems
    assert "'qwen3-32b' fits no tier: on rtx4090-int4" in qwen
    assert "need 16.4 GB, but 1 x 24 GB at 60% utilisation is 14.4 GB" in qwen
    assert "'llama-3.1-70b'" in llama


def test_every_model_that_can_be_planned_with_fits_the_shipped_tiers():
    known = CATALOG.select(models=[model.name for model in CATALOG.models.values() if model.error is not None])
    configurations = candidate_configurations(known).configurations
    assert {c.pair for c in configurations} == {(m, t) for m in known.models for t in known.tiers}
    assert len(set(configurations)) == len(configurations)
