"""Files of measured steps: three kinds, and every way in which one can be wrong."""

import gzip

import pytest

from experiments.calibrate.measurements import read_measurements
from simulator.errors import InputError

OWN = "phase,gpu,precision,model,tensor_parallel,batch,query_tokens,context_tokens,step_ms"
DECODE = "decode,h100-80,fp16,llama-3.1-8b,2,4,1,1000,6.5"
PREFILL = "prefill,h100-80,fp16,llama-3.1-8b,2,1,512,512,12"


@pytest.fixture
def problems(tmp_path):
    def found(*lines):
        path = tmp_path / "steps.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with pytest.raises(InputError) as caught:
            read_measurements(path)
        assert all(str(path) in problem for problem in caught.value.problems)
        return [problem.removeprefix(str(path)) for problem in caught.value.problems]

    return found


def test_our_own_kind(tmp_path):
    path = tmp_path / "steps.csv"
    columns = OWN.split(",")
    shuffled = list(reversed(columns))
    values = dict(zip(columns, DECODE.split(","), strict=True))
    text = "﻿" + ",".join(["note", *shuffled]) + "\r\n" + ",".join(["x", *(values[c] for c in shuffled)]) + "\r\n"
    path.write_bytes(gzip.compress(text.encode()))
    found = read_measurements(path)
    assert (found.kind, len(found), found.line.tolist(), found.prefill.tolist()) == ("tokenfleet", 1, [2], [False])
    assert (found.gpu, found.precision, found.model) == (("h100-80",), ("fp16",), ("llama-3.1-8b",))
    assert found.step_s.tolist() == [0.0065]
    assert (found.tensor_parallel[0], found.batch[0], found.query_tokens[0], found.context_tokens[0]) == (2, 4, 1, 1000)
    assert found.parts_s == {}


def test_public_tables_are_read_as_they_are(data_dir):
    composed = read_measurements(data_dir / "latency" / "composed_step_times.csv.gz")
    assert (composed.kind, len(composed), set(composed.precision)) == ("composed", 7255, {"bfloat16", "fp8"})
    assert sum(composed.parts_s.values()) == pytest.approx(composed.step_s, rel=1e-3)
    splitwise = read_measurements(data_dir / "latency" / "splitwise_step_times.csv")
    assert (splitwise.kind, len(splitwise), int(splitwise.prefill.sum())) == ("splitwise", 930, 465)
    assert set(splitwise.query_tokens[~splitwise.prefill].tolist()) == {1}


def test_rows_are_a_choice(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("\n".join([OWN, DECODE, PREFILL]), encoding="utf-8")
    found = read_measurements(path)
    kept = found.rows(found.prefill)
    assert (kept.line.tolist(), kept.step_s.tolist(), kept.gpu) == ([3], [0.012], ("h100-80",))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (DECODE.replace("6.5", "0"), ":2: step_ms: found '0', expected a time in ms, above 0"),
        (DECODE.replace("6.5", "-1"), ":2: step_ms: found '-1', expected a time in ms, above 0"),
        (DECODE.replace("6.5", "nan"), ":2: step_ms: found 'nan', expected a time in ms, above 0"),
        (DECODE.replace("6.5", "6.5ms"), ":2: step_ms: found '6.5ms', expected a time in ms, above 0"),
        (DECODE.replace(",4,", ",0,"), ":2: batch: found '0', expected a whole number of at least 1"),
        (DECODE.replace(",4,", ",4.5,"), ":2: batch: found '4.5', expected a whole number of at least 1"),
        (DECODE.replace("decode", "warmup"), ":2: phase: found 'warmup', expected prefill or decode"),
        (DECODE.replace(",1,1000", ",2,1000"), ":2: a decode step processes 1 token of each sequence"),
        (PREFILL.replace("512,512", "512,100"), ":2: the context holds the tokens of the query"),
        (DECODE.replace("h100-80", " "), ":2: gpu: empty, expected a name"),
        (DECODE + ",1", ":2: 10 cells, the header has 9"),
    ],
)
def test_bad_cells(problems, line, told):
    (found,) = problems(OWN, line)
    assert found.startswith(told)


def test_all_problems_are_told_together(problems):
    assert len(problems(OWN, *[DECODE.replace("6.5", "0")] * 3, DECODE.replace("decode", "x"))) == 4
    assert problems(OWN, *[DECODE.replace("6.5", "0")] * 30)[-1] == ": and 10 more"


def test_mixed_units(problems):
    (found,) = problems(OWN, DECODE, DECODE.replace("6.5", "6.6"), DECODE.replace("6.5", "0.0065"))
    assert found.startswith(":4: 0.0065 ms, where other rows of the same point say 6.5: mixed units?")


def test_headers(problems):
    assert problems(OWN.replace("step_ms", "step_us"), DECODE)[0].startswith(
        ": columns step_ms are missing (tokenfleet steps); times are expected in ms in step_ms, found step_us"
    )
    assert (
        "are missing (splitwise steps)"
        in problems("gpu,model,tensor_parallel,prompt_tokens,prefill_ms", "a,b,1,2,3")[0]
    )
    assert problems(OWN) == [": there is no row below the header"]
    assert problems("") == [": empty, expected a header and rows"]


def test_files_that_are_none(tmp_path):
    for path, told in ((tmp_path, "cannot be read"), (tmp_path / "nowhere.csv", "cannot be read")):
        with pytest.raises(InputError, match=told):
            read_measurements(path)
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(b"a,b\n" * 1000)[:-20])
    with pytest.raises(InputError, match="gzipped or not"):
        read_measurements(broken)
