"""A user's catalog file: what it may add, and every way in which it can be wrong."""

import pytest

from simulator.catalog import SourceKind, load_catalog
from simulator.errors import InputError

B200 = """
[gpu.b300-288]
label = "NVIDIA B300 288 GB"
sources.b300-datasheet = { kind = "datasheet", citation = "NVIDIA B300 datasheet" }
memory = { value = 180, unit = "GB", source = "b300-datasheet" }
bandwidth = { value = 8000, unit = "GB/s", source = "b300-datasheet" }
peak.fp16 = { value = 2250, unit = "TFLOP/s", source = "b300-datasheet" }
peak.int8 = { value = 4500, unit = "TOP/s", source = "b300-datasheet" }
interconnect = { value = "nvlink", unit = "name", source = "b300-datasheet" }
hop_latency = { value = 0.0003, unit = "s", source = "hop-latency" }
price = { value = 5.0, unit = "USD/GPU-h", source = "market-price" }
"""

PRECISION = """
[precision.fp16]
weight_factor = { value = 1.0, unit = "1", source = "bit-width" }
error_factor = { value = 1.0, unit = "1", source = "base-problem" }
compute_efficiency = { value = 0.3, unit = "1", source = "base-problem" }
"""

MODEL = """
[model.tiny]
label = "tiny"
sources.card = { kind = "model card", citation = "a card" }
parameters = { value = 1.0, unit = "1e9", source = "card" }
layers = { value = 10, unit = "1", source = "card" }
attention_heads = { value = 16, unit = "1", source = "card" }
kv_heads = { value = 8, unit = "1", source = "card" }
head_dim = { value = 64, unit = "1", source = "card" }
hidden_size = { value = 1024, unit = "1", source = "card" }
error = { value = 0.2, unit = "1", source = "card" }
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return load_catalog(path)

    return load


def problems(load, text):
    with pytest.raises(InputError) as caught:
        load(text)
    assert all("mine.toml: " in problem for problem in caught.value.problems)
    return [problem.split("mine.toml: ")[1] for problem in caught.value.problems]


def test_one_block_adds_a_gpu_with_its_tiers(load):
    shipped, catalog = load_catalog(), load(B200)
    assert [name for name in catalog.tiers if name not in shipped.tiers] == ["b300-288-fp16", "b300-288-int8"]
    assert catalog.tiers["b300-288-int8"].compute_tflops == 4500
    assert catalog.tiers["h100-80-fp8"] == shipped.tiers["h100-80-fp8"]
    memory = next(v for v in catalog.provenance if (v.block, v.field) == ("b300-288", "memory"))
    assert (memory.value, memory.source.kind, memory.source.citation) == (
        180,
        SourceKind.DATASHEET,
        "NVIDIA B300 datasheet",
    )


def test_a_block_replaces_the_shipped_one_as_a_whole(load):
    catalog = load(B200.replace("b300-288]", "h100-80]"))
    assert [name for name in catalog.tiers if name.startswith("h100-80")] == ["h100-80-fp16", "h100-80-int8"]
    assert catalog.tiers["h100-80-fp16"].memory_gb == 180
    assert sum(v.block == "h100-80" and v.field == "memory" for v in catalog.provenance) == 1


def test_a_model_block_replaces_the_shipped_one(load):
    catalog = load(MODEL.replace("[model.tiny]", '[model."llama-3.1-8b"]'))
    assert list(catalog.models) == list(load_catalog().models)
    assert catalog.models["llama-3.1-8b"].weights_gb == 2.0


def test_a_precision_of_the_user_changes_every_tier_of_that_precision(load):
    catalog = load(PRECISION)
    assert {tier.compute_efficiency for tier in catalog.tiers.values() if tier.precision == "fp16"} == {0.3}


def test_a_model_derives_weights_and_cache(load):
    model = load(MODEL).models["tiny"]
    assert (model.weights_gb, model.kv_bytes_per_token) == (2.0, 2 * 10 * 8 * 64 * 2)
    fewer = MODEL + 'kv_layers = { value = 4, unit = "1", source = "card" }\n'
    assert load(fewer).models["tiny"].kv_bytes_per_token == 2 * 4 * 8 * 64 * 2


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ('value = 180, unit = "GB"', 'value = 180, unit = "GiB"', "gpu.b300-288.memory.unit", "'GB', found 'GiB'"),
        ('8000, unit = "GB/s"', '8, unit = "TB/s"', "gpu.b300-288.bandwidth.unit", "'GB/s', found 'TB/s'"),
        ('8000, unit = "GB/s"', '8, unit = "GB/s"', "gpu.b300-288.bandwidth.value", "greater than or equal to 10"),
        ("value = 5.0", "value = -5.0", "gpu.b300-288.price.value", "greater than or equal to 0, found -5.0"),
        ("value = 5.0", 'value = "5.0"', "gpu.b300-288.price.value", "valid number"),
        ("value = 5.0", "value = nan", "gpu.b300-288.price.value", "finite number"),
        ("value = 5.0", "value = true", "gpu.b300-288.price.value", "valid number"),
        ('"nvlink"', '"infiniband"', "gpu.b300-288.interconnect.value", "'pcie' or 'nvlink'"),
        ('"market-price"', '"market-prices"', "gpu.b300-288.price.source", "did you mean 'market-price'"),
        (', source = "market-price"', "", "gpu.b300-288.price.source", "Field required"),
        ('unit = "USD/GPU-h", ', "", "gpu.b300-288.price.unit", "Field required"),
        ("memory =", "memory_gb =", "gpu.b300-288.memory_gb", "this key does not exist; did you mean 'memory'"),
        ("memory =", "memory_gb =", "gpu.b300-288.memory", "Field required"),
        ("peak.int8", "peak.int9", "gpu.b300-288.peak", "precision 'int9' is not defined; did you mean 'int8'"),
        ('"TOP/s"', '"TFLOP/s"', "gpu.b300-288.peak", "the unit of int8 is 'TFLOP/s', expected 'TOP/s'"),
        ('kind = "datasheet"', 'kind = "rumour"', "gpu.b300-288.sources.b300-datasheet.kind", "found 'rumour'"),
        ("[gpu.b300-288]", "[gpus.b300-288]", "gpus", "this key does not exist"),
        ("[gpu.b300-288]", '[gpu."B200 big"]', "gpu.B200 big.[key]", "pattern"),
    ],
)
def test_each_mistake_is_named_with_its_field(load, old, new, field, says):
    assert B200.count(old) == 1
    found = problems(load, B200.replace(old, new))
    assert any(problem.startswith(f"{field}: ") and says in problem for problem in found), found


def test_all_problems_are_reported_together(load):
    text = B200.replace('"GB"', '"MB"').replace("value = 5.0", "value = -5.0").replace('"hop-latency"', '"nowhere"')
    text = text.replace("label", "colour")
    fields = [problem.split(": ")[0] for problem in problems(load, text)]
    assert sorted(fields) == [
        "gpu.b300-288.colour",
        "gpu.b300-288.hop_latency.source",
        "gpu.b300-288.label",
        "gpu.b300-288.memory.unit",
        "gpu.b300-288.price.value",
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kv_heads = { value = 8", "kv_heads = { value = 5", "attention_heads (16) is not a multiple of kv_heads (5)"),
        (
            "error =",
            'kv_layers = { value = 11, unit = "1", source = "card" }\nerror =',
            "kv_layers (11) is above layers",
        ),
        ("value = 10,", "value = 10.5,", "layers.value"),
        ("value = 0.2", "value = 20", "error.value"),
    ],
)
def test_a_model_must_be_consistent(load, old, new, says):
    assert MODEL.count(old) == 1
    found = problems(load, MODEL.replace(old, new))
    assert len(found) == 1
    assert found[0].startswith("model.tiny")
    assert says in found[0]


def test_a_source_is_defined_once_in_a_file(load):
    again = '[sources]\ncard = { kind = "assumed", citation = "other" }\n'
    assert "these sources are defined twice: card" in problems(load, again + MODEL)[0]


@pytest.mark.parametrize("text", ["sources = 3", "gpu = 3", "[gpu]\nb200 = 3", "[gpu.x]\nsources = 3\npeak = 3"])
def test_wrong_shapes_are_problems_of_the_user(load, text):
    assert problems(load, text)


def test_broken_toml_names_the_line(load):
    assert "line 2" in problems(load, "[gpu.x]\nmemory = ?\n")[0]


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_catalog(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml: expected TOML in UTF-8"):
        load_catalog(tmp_path / "binary.toml")
