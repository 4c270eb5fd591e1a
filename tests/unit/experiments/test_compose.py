"""Step times from kernels, by hand."""

import pytest

from experiments.calibrate.compose import compose, csv_of
from experiments.calibrate.measurements import read_measurements
from simulator.catalog import load_catalog
from simulator.errors import InputError

CATALOG = load_catalog()
DENSE = """gpu,model,tp,table,layer,tokens,time_us,sequences
RTX4090,meta-llama/Llama-3.1-8B,1,dense,qkv_proj,1,10,
RTX4090,meta-llama/Llama-3.1-8B,1,dense,qkv_proj,101,20,
RTX4090,meta-llama/Llama-3.1-8B,1,dense,layernorm,1,1,
RTX4090,meta-llama/Llama-3.1-8B,1,dense,layernorm,101,1,
RTX4090,meta-llama/Llama-3.1-8B,1,dense,embedding,1,5,
RTX4090,meta-llama/Llama-3.1-8B,1,dense,embedding,101,5,
RTX4090,meta-llama/Llama-3.1-8B,1,per_sequence,lm_head,,100,1
RTX4090,meta-llama/Llama-3.1-8B,1,per_sequence,lm_head,,200,11
RTX4090,meta-llama/Llama-3.1-8B,1,per_sequence,sampler,,7,1
RTX4090,meta-llama/Llama-3.1-8B,1,per_sequence,sampler,,7,11
"""
ATTENTION = """gpu,model,tp,prefill_chunk,kv_prefill,n_decode,kv_decode,time_us
RTX4090,meta-llama/Llama-3.1-8B,1,0,0,6,64,3
RTX4090,meta-llama/Llama-3.1-8B,1,51,49,0,0,4
RTX4090,meta-llama/Llama-3.1-8B,1,16,0,2,64,9
RTX4090,meta-llama/Llama-3.1-8B,1,0,0,500,64,9
RTX4090,meta-llama/Llama-3.1-8B,1,0,0,8,100000,9
RTX4090,meta-llama/Llama-3.1-8B,2,0,0,1,64,3
RTX6000,meta-llama/Llama-3.1-8B,1,0,0,1,64,3
"""


@pytest.fixture
def tables(tmp_path):
    def write(dense=DENSE, attention=ATTENTION):
        paths = tmp_path / "dense.csv", tmp_path / "attention.csv"
        for path, text in zip(paths, (dense, attention), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return write


def test_sums_by_hand(tables):
    rows, notes = compose(*tables(), CATALOG)
    decode, prefill = rows  # mixed batches, too many sequences and too much cache are left out
    assert decode["gemm_ms"] == pytest.approx((32 * (10.5 + 2 * 1) + 5) / 1e3)
    assert decode["lm_head_ms"] == pytest.approx((150 + 7) / 1e3)
    assert decode["attention_ms"] == pytest.approx(32 * 3 / 1e3)
    assert decode["step_ms"] == pytest.approx(sum(decode[k] for k in ("gemm_ms", "lm_head_ms", "attention_ms")))
    assert (decode["batch"], decode["query_tokens"], decode["context_tokens"]) == (6, 1, 64)
    assert prefill["gemm_ms"] == pytest.approx((32 * (15 + 2) + 5) / 1e3)
    assert (prefill["batch"], prefill["query_tokens"], prefill["context_tokens"]) == (1, 51, 100)
    assert notes == [
        "RTX4090, meta-llama/Llama-3.1-8B, TP 2: left out, the tables hold no all-reduces",
        "RTX6000, meta-llama/Llama-3.1-8B: left out, not in the catalog",
    ]


def test_the_rows_are_measurements(tables, tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text(csv_of(compose(*tables(), CATALOG)[0]), encoding="utf-8")
    found = read_measurements(path)
    assert (found.kind, len(found), sorted(found.parts_s)) == (
        "tokenfleet",
        2,
        ["allreduce", "attention", "gemm", "lm_head"],
    )


def test_bad_tables(tables, tmp_path):
    with pytest.raises(InputError, match="columns time_us are missing"):
        compose(*tables(dense=DENSE.replace("time_us", "time")), CATALOG)
    with pytest.raises(InputError, match="times above 0"):
        compose(*tables(attention=ATTENTION.replace(",64,3", ",64,0")), CATALOG)
    with pytest.raises(InputError, match="cannot be read"):
        compose(tmp_path / "nowhere.csv", tables()[1], CATALOG)
