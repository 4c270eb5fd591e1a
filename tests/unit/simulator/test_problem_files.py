"""Problem and plan files: every way in which they can be wrong is refused with the file and the field."""

import copy
import gzip
import json
import math
import os

import numpy as np
import pytest

from simulator.catalog.configuration import Configuration
from simulator.errors import InputError
from simulator.planning.files import read_plan, read_problem, write_plan, write_text
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.planning.problem import CapacityRows

PROBLEM = {
    "format": "tokenfleet-problem/1",
    "name": "small",
    "period_h": 24.0,
    "budget_usd": 100.0,
    "storage_price_usd_per_gb_h": 0.001,
    "storage_capacity_gb": 500.0,
    "max_replicas": 4,
    "query_types": [
        {
            "name": name,
            "arrival_per_h": 3600.0,
            "input_tokens": 100.0,
            "output_tokens": 50.0,
            "delay_slo_s": 5.0,
            "error_slo": 0.1,
            "delay_penalty_usd_per_query_s": 1e-5,
            "unmet_penalty_usd_per_query": 0.01,
            "unmet_cap": 0.5,
            "token_storage_gb_per_token": 1e-6,
        }
        for name in ("chat", "code")
    ],
    "models": [
        {"name": name, "parameters_b": 1.0, "weights_gb": 2.0, "kv_mb_per_token": 0.1} for name in ("tiny", "spare")
    ],
    "tiers": [
        {
            "name": name,
            "memory_gb": 24.0,
            "compute_tflops": 100.0,
            "compute_efficiency": 0.5,
            "bandwidth_gb_s": 900.0,
            "price_usd_per_gpu_h": 0.5,
            "weight_factor": 1.0,
        }
        for name in ("gpu-fp16", "gpu-int8")
    ],
    "configurations": [
        {"model": "tiny", "tier": "gpu-fp16", "tensor_parallel": 1, "pipeline_parallel": 1},
        {"model": "tiny", "tier": "gpu-fp16", "tensor_parallel": 2, "pipeline_parallel": 1},
    ],
    "delay_s": [[1.0, 0.5], [2.0, 1.0]],
    "error": [[0.05, 0.05], [0.06, 0.06]],
}

PLAN = {
    "format": "tokenfleet-plan/1",
    "problem": "small",
    "policy": "gh",
    "status": "feasible",
    "cost_usd": 12.5,
    "bound_usd": None,
    "seconds": None,
    "deployments": [
        {"model": "tiny", "tier": tier, "tensor_parallel": 1, "pipeline_parallel": 1, "replicas": 2}
        for tier in ("gpu-fp16", "gpu-int8")
    ],
    "routing": [{"query_type": "chat", "model": "tiny", "tier": "gpu-fp16", "share": 1.0}],
    "unmet": [{"query_type": "code", "share": 1.0}],
}

MISSING = object()


def changed(document, *changes):
    """A copy with the value at each path replaced, or taken out where it is MISSING."""
    result = copy.deepcopy(document)
    for path, value in changes:
        place = result
        for key in path[:-1]:
            place = place[key]
        if value is MISSING:
            del place[path[-1]]
        else:
            place[path[-1]] = value
    return result


@pytest.fixture
def write(tmp_path):
    def write(content, name="file.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def problems_of(read, path):
    """The messages of the refusal, without the file's name, which each of them must begin with."""
    with pytest.raises(InputError) as caught:
        read(path)
    for problem in caught.value.problems:
        assert problem.startswith(f"{path}: "), problem
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_the_unchanged_files_are_good(write):
    problem = read_problem(write(PROBLEM))
    assert [query_type.name for query_type in problem.query_types] == ["chat", "code"]
    assert problem.query_types[0].unmet_cap == 0.5
    assert [configuration.gpus for configuration in problem.configurations] == [1, 2]
    assert problem.delay_s.tolist() == PROBLEM["delay_s"]
    assert problem.error.tolist() == PROBLEM["error"]
    assert problem.capacity_rows is CapacityRows.PAPER
    assert read_plan(write(PLAN)).deployments[0].replicas == 2


def test_a_problem_has_the_rows_of_the_paper(write):
    """Compute: 150 tokens/s of 2 GFLOP against 50 TFLOP/s a GPU; KV: 0.1 MB a token, D seconds long, beside 2 GB."""
    problem = read_problem(write(PROBLEM))
    assert problem.load == pytest.approx(np.array([[150 * 0.002 / 50, 150 * 0.002 / 100]] * 2))
    assert problem.kv == pytest.approx(
        np.array([[150 * 1e-4 * 1.0 / 22, 150 * 1e-4 * 0.5 / 46], [150 * 1e-4 * 2.0 / 22, 150 * 1e-4 * 1.0 / 46]])
    )
    assert problem.allowed.all()
    assert problem.cap.tolist() == [1.0, 1.0]


def test_weights_that_do_not_fit_rule_a_route_out(write):
    problem = read_problem(write(changed(PROBLEM, (("models", 0, "weights_gb"), 24.0))))
    assert problem.allowed.tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        (("format",), "tokenfleet-problem/2", "format", "Input should be 'tokenfleet-problem/1', found"),
        (("format",), MISSING, "format", "Field required"),
        (("budget",), 1.0, "budget", "this key does not exist; did you mean 'budget_usd'"),
        (("query_types", 1, "slo"), 1.0, "query_types[1].slo", "this key does not exist"),
        (("models", 0, "layers"), 3, "models[0].layers", "this key does not exist"),
        (("tiers", 0, "price_usd_per_gpu_h"), MISSING, "tiers[0].price_usd_per_gpu_h", "Field required"),
        (("tiers", 0, "price_usd_per_gpu_h"), -0.5, "tiers[0].price_usd_per_gpu_h", "0, found -0.5"),
        (("tiers", 0, "price_usd_per_gpu_h"), math.nan, "tiers[0].price_usd_per_gpu_h", "finite number, found nan"),
        (("tiers", 0, "compute_efficiency"), 1.5, "tiers[0].compute_efficiency", "found 1.5"),
        (("tiers", 0, "compute_efficiency"), 0, "tiers[0].compute_efficiency", "greater than 0, found 0"),
        (("tiers", 0, "memory_gb"), "much", "tiers[0].memory_gb", "found 'much'"),
        (("models", 0, "weights_gb"), 0.0, "models[0].weights_gb", "greater than 0"),
        (("period_h",), 0, "period_h", "greater than 0"),
        (("budget_usd",), -1, "budget_usd", "found -1"),
        (("budget_usd",), math.inf, "budget_usd", "finite number, found inf"),
        (("storage_price_usd_per_gb_h",), -0.1, "storage_price_usd_per_gb_h", "found -0.1"),
        (("max_replicas",), 0, "max_replicas", "greater than or equal to 1, found 0"),
        (("max_replicas",), 2.5, "max_replicas", "found 2.5"),
        (("max_replicas",), 10**30, "max_replicas", "less than or equal to 1000000000, found 1000"),
        (
            ("configurations", 0, "tensor_parallel"),
            10**30,
            "configurations[0].tensor_parallel",
            "less than or equal to",
        ),
        (("storage_capacity_gb",), -math.inf, "storage_capacity_gb", "finite number, found -inf"),
        (("configurations", 0, "pipeline_parallel"), MISSING, "configurations[0].pipeline_parallel", "Field required"),
        (("configurations",), MISSING, "configurations", "Field required"),
        (("delay_s", 0), [], "delay_s[0]", "expected 2 values"),
        (("query_types", 0, "arrival_per_h"), -1, "query_types[0].arrival_per_h", "found -1"),
        (("query_types", 0, "delay_slo_s"), 0, "query_types[0].delay_slo_s", "greater than 0"),
        (("query_types", 0, "unmet_cap"), 1.1, "query_types[0].unmet_cap", "less than or equal to 1, found 1.1"),
        (("query_types", 0), None, "query_types[0]", "found None"),
        (("configurations", 1, "tensor_parallel"), 0, "configurations[1].tensor_parallel", "found 0"),
        (("delay_s", 0, 1), math.nan, "delay_s[0][1]", "finite number, found nan"),
        (("delay_s", 0, 1), -0.5, "delay_s[0][1]", "found -0.5"),
        (("error", 1, 0), math.inf, "error[1][0]", "finite number, found inf"),
        (("delay_s",), 3.0, "delay_s", "found 3.0"),
        (("query_types",), [], "query_types", "at least 1 item"),
        (("configurations",), [], "configurations", "at least 1 item"),
    ],
)
def test_each_mistake_in_a_problem_is_named_with_its_field(write, path, value, field, says):
    (found,) = problems_of(read_problem, write(changed(PROBLEM, (path, value))))
    assert found.startswith(f"{field}: ")
    assert says in found


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("delay_s", 1), [1.0], ["delay_s[1]: expected 2 values, one per configuration, found 1"]),
        (("delay_s", 0), [1.0] * 3, ["delay_s[0]: expected 2 values, one per configuration, found 3"]),
        (("error", 0), [], ["error[0]: expected 2 values, one per configuration, found 0"]),
        (("delay_s",), [[1.0, 1.0]], ["delay_s: expected 2 rows, one per query type, found 1"]),
        (("error",), [[0.0, 0.0]] * 3, ["error: expected 2 rows, one per query type, found 3"]),
        (("configurations", 0, "model"), "huge", ["configurations[0].model: 'huge' is not in models"]),
        (("configurations", 1, "tier"), "tpu", ["configurations[1].tier: 'tpu' is not in tiers"]),
        (("configurations", 1, "tensor_parallel"), 1, ["configurations[1]: repeats an earlier configuration"]),
        (("query_types", 1, "name"), "chat", ["query_types[1].name: 'chat' again"]),
        (("models",), PROBLEM["models"][:1] * 2, ["models[1].name: 'tiny' again"]),
        (("tiers",), PROBLEM["tiers"][:1] * 3, ["tiers[1].name: 'gpu-fp16' again", "tiers[2].name: 'gpu-fp16' again"]),
        (
            ("configurations",),
            PROBLEM["configurations"][:1],
            [
                f"{field}[{i}]: expected 1 values, one per configuration, found 2"
                for field in ("delay_s", "error")
                for i in (0, 1)
            ],
        ),
    ],
)
def test_parts_of_a_problem_must_fit_together(write, path, value, says):
    assert problems_of(read_problem, write(changed(PROBLEM, (path, value)))) == says


NUMBERS_OF_PROBLEM = [
    ("budget_usd",),
    ("max_replicas",),
    ("query_types", 0, "unmet_cap"),
    ("models", 0, "weights_gb"),
    ("tiers", 0, "compute_efficiency"),
    ("configurations", 0, "pipeline_parallel"),
    ("delay_s", 0, 1),
    ("error", 1, 0),
]
NUMBERS_OF_PLAN = [
    ("cost_usd",),
    ("bound_usd",),
    ("seconds",),
    ("deployments", 0, "replicas"),
    ("deployments", 1, "tensor_parallel"),
    ("deployments", 1, "tpot_target_s"),
    ("routing", 0, "share"),
    ("unmet", 0, "share"),
]


@pytest.mark.parametrize("value", [True, "1"])
@pytest.mark.parametrize(
    ("read", "document", "path"),
    [(read_problem, PROBLEM, path) for path in NUMBERS_OF_PROBLEM]
    + [(read_plan, PLAN, path) for path in NUMBERS_OF_PLAN],
)
def test_truth_values_and_texts_are_no_numbers(write, read, document, path, value):
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    (found,) = problems_of(read, write(changed(document, (path, value))))
    assert found.startswith(f"{field}: Input should be a valid ")
    assert found.endswith(f"found {value!r}")


def test_integers_are_good_floats(write):
    problem = read_problem(write(changed(PROBLEM, (("budget_usd",), 100), (("delay_s", 0), [1, 2]))))
    assert problem.budget_usd == 100.0
    assert problem.delay_s[0].tolist() == [1.0, 2.0]


def test_a_model_and_a_tier_that_no_configuration_uses_do_no_harm(write):
    problem = read_problem(write(PROBLEM))
    assert {c.pair for c in problem.configurations} == {("tiny", "gpu-fp16")}
    assert {m.name for m in problem.models} == {"tiny", "spare"}


def test_all_mistakes_are_reported_together(write):
    document = changed(
        PROBLEM, (("tiers", 0, "memory_gb"), -1), (("colour",), "red"), (("delay_s", 1, 1), None), (("name",), MISSING)
    )
    fields = sorted(problem.split(": ")[0] for problem in problems_of(read_problem, write(document)))
    assert fields == ["colour", "delay_s[1][1]", "name", "tiers[0].memory_gb"]


def test_one_mistake_in_the_only_tier_is_one_message(write):
    document = changed(PROBLEM, (("tiers",), [{**PROBLEM["tiers"][0], "memory_gb": -1.0}]))
    (found,) = problems_of(read_problem, write(document))
    assert found.startswith("tiers[0].memory_gb: ")


def test_mistakes_of_consistency_are_reported_together(write):
    document = changed(PROBLEM, (("query_types", 1, "name"), "chat"), (("configurations", 0, "tier"), "tpu"))
    assert problems_of(read_problem, write(document)) == [
        "query_types[1].name: 'chat' again",
        "configurations[0].tier: 'tpu' is not in tiers",
    ]


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        (("format",), "tokenfleet-problem/1", "format", "Input should be 'tokenfleet-plan/1', found"),
        (("colour",), "red", "colour", "this key does not exist"),
        (("cost_usd",), MISSING, "cost_usd", "Field required"),
        (("cost_usd",), math.nan, "cost_usd", "finite number, found nan"),
        (("bound_usd",), math.inf, "bound_usd", "finite number, found inf"),
        (("seconds",), -1.0, "seconds", "found -1.0"),
        (("status",), "perfect", "status", "found 'perfect'"),
        (("deployments", 0, "replicas"), 0, "deployments[0].replicas", "greater than or equal to 1, found 0"),
        (("deployments", 0, "replicas"), 1.5, "deployments[0].replicas", "found 1.5"),
        (("deployments", 0, "gpus"), 2, "deployments[0].gpus", "this key does not exist"),
        (("deployments", 0, "tpot_target_s"), 0, "deployments[0].tpot_target_s", "greater than 0"),
        (("routing", 0, "share"), -0.1, "routing[0].share", "greater than or equal to 0, found -0.1"),
        (("routing", 0, "share"), 1.1, "routing[0].share", "less than or equal to 1, found 1.1"),
        (("unmet", 0, "share"), math.nan, "unmet[0].share", "finite number, found nan"),
        (("unmet", 0, "query_type"), MISSING, "unmet[0].query_type", "Field required"),
    ],
)
def test_each_mistake_in_a_plan_is_named_with_its_field(write, path, value, field, says):
    (found,) = problems_of(read_plan, write(changed(PLAN, (path, value))))
    assert found.startswith(f"{field}: ")
    assert says in found


@pytest.mark.parametrize("read", [read_problem, read_plan])
class TestFilesThatCannotBeRead:
    def test_no_such_file(self, read, tmp_path):
        assert problems_of(read, tmp_path / "none.json") == ["cannot be read: No such file or directory"]

    def test_a_directory(self, read, tmp_path):
        assert problems_of(read, tmp_path) == ["cannot be read: Is a directory"]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "line 1, column 1: expected JSON"),
            (b'{\n "format": tokenfleet\n}', "line 2, column 12: expected JSON"),
            (b'{"format": "tokenfleet-problem/1"', "line 1, column 34: expected JSON"),
            (b"PK\x03\x04\xff\xfe", "expected JSON in UTF-8"),
            (b"[]", "(top level): "),
            (b'"text"', "(top level): "),
            (b"3", "(top level): "),
        ],
    )
    def test_not_json(self, read, write, content, says):
        (found,) = problems_of(read, write(content))
        assert found.startswith(says)

    @pytest.mark.parametrize("kept", [12, 60, -8, -1])
    def test_truncated_gzip(self, read, write, kept):
        (found,) = problems_of(read, write(gzip.compress(json.dumps(PROBLEM).encode())[:kept]))
        assert found.startswith("cannot be read: ")
        assert len(found) > len("cannot be read: ")

    def test_damaged_gzip(self, read, write):
        data = bytearray(gzip.compress(json.dumps(PROBLEM).encode()))
        data[40] ^= 0xFF
        (found,) = problems_of(read, write(bytes(data)))
        assert found.startswith("cannot be read: ")

    @pytest.mark.parametrize("content", [b"[" * 100_000, b"1" * 5_000], ids=["deep", "long number"])
    def test_json_beyond_the_limits_of_python(self, read, write, content):
        assert len(problems_of(read, write(content))) == 1


def test_gzip_is_told_by_content_not_by_name(write):
    plain, packed = json.dumps(PROBLEM).encode(), gzip.compress(json.dumps(PROBLEM).encode())
    assert read_problem(write(packed, "p.json")).name == "small"
    assert read_problem(write(plain, "p.json.gz")).name == "small"


def small_plan():
    return Plan(
        problem="p",
        policy="gh",
        status=PlanStatus.OPTIMAL,
        cost_usd=1 / 3,
        bound_usd=0.1,
        seconds=0.25,
        deployments=(
            Deployment(
                configuration=Configuration(model="m", tier="t", tensor_parallel=2, pipeline_parallel=1), replicas=3
            ),
        ),
        routing=(Route(query_type="q", model="m", tier="t", share=0.9),),
        unmet=(("q", 0.1),),
    )


def test_a_plan_is_written_as_stated(tmp_path):
    path = tmp_path / "new" / "folder" / "plan.json"
    write_plan(path, small_plan())
    assert json.loads(path.read_text()) == {
        "format": "tokenfleet-plan/1",
        "problem": "p",
        "policy": "gh",
        "status": "optimal",
        "cost_usd": 1 / 3,
        "bound_usd": 0.1,
        "seconds": 0.25,
        "deployments": [{"model": "m", "tier": "t", "tensor_parallel": 2, "pipeline_parallel": 1, "replicas": 3}],
        "routing": [{"query_type": "q", "model": "m", "tier": "t", "share": 0.9}],
        "unmet": [{"query_type": "q", "share": 0.1}],
    }
    assert read_plan(path) == small_plan()


def test_writing_replaces_a_file_whole(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("an older and much longer text than the new one")
    write_text(path, "short\n")
    assert path.read_text() == "short\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    """Whether the text cannot be encoded or the last step fails: never a half-written file."""
    path = tmp_path / "plan.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "x" * 100_000 + "\ud800")
    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.json"]


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "plan.json"
    with pytest.raises(InputError) as caught:
        write_text(path, "text")
    assert str(caught.value).startswith(f"{path}: cannot be written: ")


def test_a_directory_in_place_of_the_file(tmp_path):
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(InputError, match=r"plan\.json: cannot be written: Is a directory"):
        write_text(tmp_path / "plan.json", "text")
    assert os.listdir(tmp_path) == ["plan.json"]


def test_the_data_files_are_read(data_dir):
    paths = sorted((data_dir / "problems").glob("*.json.gz"))
    assert len(paths) == 19
    for path in paths:
        problem = read_problem(path)
        types, models, tiers = (int(part) for part in path.name.split("-")[0].split("x"))
        assert (len(problem.query_types), len(problem.models), len(problem.tiers)) == (types, models, tiers)
