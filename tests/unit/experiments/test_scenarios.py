"""Scenario files: what they may say, how they can be wrong, and which query type a request belongs to."""

import numpy as np
import pytest

from experiments.replay.controller import nominal_problem
from experiments.scenario.notes import scenario_notes
from experiments.scenario.scenario import (
    Unmatched,
    classify,
    load_scenario,
    shipped_scenarios,
    slowed,
    with_changes,
    with_delay_model,
    with_forecast,
)
from simulator.errors import InputError
from simulator.planning.problem import CapacityRows
from simulator.workload import Trace

SCENARIO = """
format = "tokenfleet-scenario/1"
name = "small"
discipline = "batching"
capacity = "batching"

[catalog]
models = ["llama-3.1-8b"]
tiers = ["h100-80-fp16", "l40s-fp8"]
tensor_parallel = [1, 2]

[limits]
budget_usd_per_h = 20.0

[[query_types]]
name = "short"
source = "conv"
input_tokens = { min = 10, max = 99 }
output_tokens = { max = 50 }
expected = { arrival_per_h = 100, input_tokens = 50, output_tokens = 20 }
delay_slo_s = 10.0
tpot_slo_s = 0.05
error_slo = 0.1
unmet_penalty_usd_per_query = 0.01

[[query_types]]
name = "rest"
input_tokens = { min = 50 }
expected = { arrival_per_h = 100, input_tokens = 500, output_tokens = 20 }
delay_slo_s = 10.0
tpot_slo_s = 0.04
error_slo = 0.1
difficulty = 2.0
unmet_penalty_usd_per_query = 0.01
"""


@pytest.fixture
def load(tmp_path):
    def load(text=SCENARIO, **replacements):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return load_scenario(str(path))

    return load


def changed(old, new):
    assert SCENARIO.count(old) >= 1, old
    return SCENARIO.replace(old, new, 1)


def problems(load, text):
    with pytest.raises(InputError) as caught:
        load(text)
    for problem in caught.value.problems:
        assert "mine.toml: " in problem
    return [problem.split("mine.toml: ")[1] for problem in caught.value.problems]


def trace(*rows, sources=("conv", "code")):
    """Rows of (source, input tokens, output tokens), a second apart."""
    table = np.array([(sources.index(source), h, f) for source, h, f in rows], dtype=np.int32).reshape(-1, 3)
    return Trace(
        sources=sources,
        arrival_s=np.arange(len(rows), dtype=np.float64),
        source=table[:, 0].copy(),
        input_tokens=table[:, 1].copy(),
        output_tokens=table[:, 2].copy(),
    )


class TestGoodFiles:
    @pytest.mark.parametrize("name", shipped_scenarios())
    def test_shipped_scenarios_load(self, name):
        scenario = load_scenario(name)
        assert scenario.name == name
        assert scenario.file.description == shipped_scenarios()[name]
        assert len(scenario.configurations) > 0
        assert {c.model for c in scenario.configurations} == set(scenario.catalog.models)

    def test_there_are_three(self):
        assert set(shipped_scenarios()) == {"azure-2023", "paper", "paper-base"}
        assert len(load_scenario("azure-2023").types) == 4
        paper = load_scenario("paper")
        assert len(paper.types) == 6
        assert (paper.file.discipline, paper.file.capacity) == ("static", CapacityRows.PAPER)

    def test_a_file_of_the_user(self, load):
        scenario = load()
        assert [rule.name for rule in scenario.types] == ["short", "rest"]
        assert scenario.tpot_targets_s == (0.04, 0.05)
        assert [(c.tier, c.tensor_parallel) for c in scenario.configurations] == [
            ("h100-80-fp16", 1),
            ("h100-80-fp16", 2),
            ("l40s-fp8", 1),
            ("l40s-fp8", 2),
        ]
        stop = scenario.file.stop.rule()
        assert (stop.relative_gap, stop.max_nodes, stop.starts) == (0.01, 2000, 12)

    def test_stated_operating_points_prevail(self, load):
        assert load(changed("[catalog]", "tpot_targets_s = [0.03]\n[catalog]")).tpot_targets_s == (0.03,)

    def test_percentile_slos(self, load):
        stated = 'name = "short"\npercentile_slos = { tpot_s = { p99 = 0.06, p50 = 0.03 }, ttft_s = { p90 = 1.0 } }'
        short, rest = load(changed('name = "short"', stated)).types
        own = [("ttft_s", 0.9, 1.0), ("tpot_s", 0.5, 0.03), ("tpot_s", 0.99, 0.06)]
        assert [(slo.measure, slo.level, slo.limit_s) for slo in short.slos(0.95)] == own
        assert short.slos() == short.slos(0.95), "what is stated counts, whatever is asked for"
        assert rest.slos() == ()
        limits = [("tpot_s", 0.95, 0.04), ("e2e_s", 0.95, 10.0)]
        assert [(slo.measure, slo.level, slo.limit_s) for slo in rest.slos(0.95)] == limits

    def test_the_time_per_token_that_is_planned_for(self, load):
        """The limit of each request; without one the tightest of the percentiles, which will do for `batching`."""
        stated = "percentile_slos = { tpot_s = { p99 = 0.06, p50 = 0.03 } }"
        both = load(changed("tpot_slo_s = 0.05", f"tpot_slo_s = 0.05\n{stated}"))
        assert both.types[0].planned_tpot_s == 0.05
        alone = load(changed("tpot_slo_s = 0.05", stated))
        assert alone.types[0].planned_tpot_s == 0.03
        assert alone.tpot_targets_s == (0.03, 0.04)

    def test_error_is_model_times_precision_times_difficulty(self, load):
        scenario = load()
        model = scenario.catalog.models["llama-3.1-8b"].error
        fp8 = scenario.catalog.tiers["l40s-fp8"].error_factor
        assert fp8 > 1
        error = scenario.error_of(scenario.configurations)
        assert error == pytest.approx(np.array([[model, model, model * fp8, model * fp8]] * 2) * [[1.0], [2.0]])

    def test_prices_can_be_overridden(self, load):
        scenario = load(changed("[limits]", 'price_usd_per_gpu_h = { "h100-80" = 1.25 }\n[limits]'))
        assert scenario.catalog.tiers["h100-80-fp16"].price_usd_per_gpu_h == 1.25

    def test_models_that_cannot_be_planned_with_are_skipped_and_told_of(self, load):
        """One has no known error, another is too large for a single GPU: the third is planned with."""
        text = changed('"llama-3.1-8b"', '"qwen3-8b", "llama-3.1-8b", "llama-3.1-70b"')
        scenario = load(text.replace("parallel = [1, 2]", "parallel = [1]"))
        assert list(scenario.catalog.models) == ["llama-3.1-8b"]
        assert {c.model for c in scenario.configurations} == {"llama-3.1-8b"}
        without_error, too_large = scenario_notes(scenario)
        assert without_error.startswith("skipped: qwen3-8b: no error is known")
        assert too_large.startswith("skipped: model 'llama-3.1-70b' fits no tier: on l40s-fp8")
        assert scenario.error_of(scenario.configurations).shape == (2, 2)
        assert nominal_problem(scenario).configurations

    def test_a_catalog_file_is_found_beside_the_scenario(self, load, tmp_path):
        (tmp_path / "own.toml").write_text(
            "[precision.fp16]\n"
            'sources.mine = { kind = "assumed", citation = "here" }\n'
            'weight_factor = { value = 1.0, unit = "1", source = "mine" }\n'
            'error_factor = { value = 1.5, unit = "1", source = "mine" }\n'
            'compute_efficiency = { value = 0.3, unit = "1", source = "mine" }\n',
            encoding="utf-8",
        )
        scenario = load(changed("[catalog]", '[catalog]\nfile = "own.toml"'))
        assert scenario.catalog.tiers["h100-80-fp16"].error_factor == 1.5


class TestBadFiles:
    @pytest.mark.parametrize(
        ("old", "new", "field", "says"),
        [
            ('format = "tokenfleet-scenario/1"', 'format = "x"', "format", "'tokenfleet-scenario/1', found 'x'"),
            ('name = "small"', "", "name", "Field required"),
            ("[limits]", "[limit]", "limit", "this key does not exist"),
            ("[limits]", "[limit]", "limits", "Field required"),
            ("budget_usd_per_h = 20.0", "budget_usd = 20.0", "limits.budget_usd", "did you mean 'budget_usd_per_h'"),
            (
                "budget_usd_per_h = 20.0",
                "coins = 20.0",
                "limits.coins",
                "expected one of budget_usd_per_h, s",
            ),
            ("20.0", "-20.0", "limits.budget_usd_per_h", "greater than or equal to 0, found -20.0"),
            ("20.0", "nan", "limits.budget_usd_per_h", "finite number"),
            ("20.0", "20.0\ncap = 0.0", "limits.cap", "greater than 0"),
            ("20.0", "20.0\ncap = 1.5", "limits.cap", "less than or equal to 1"),
            ("delay_slo_s = 10.0", "delay_slo = 10.0", "query_types[0].delay_slo", "did you mean 'delay_slo_s'"),
            ("delay_slo_s = 10.0", "delay_slo_s = 0", "query_types[0].delay_slo_s", "greater than 0"),
            ("error_slo = 0.1", "error_slo = 1.1", "query_types[0].error_slo", "less than or equal to 1"),
            ("max = 99", "max = 9", "query_types[0].input_tokens", "max (9) must not be below min (10)"),
            ("min = 10,", "min = -1,", "query_types[0].input_tokens.min", "found -1"),
            ("max = 50", "most = 50", "query_types[0].output_tokens.most", "this key does not exist"),
            ("arrival_per_h = 100", "arrival_per_h = -1", "query_types[0].expected.arrival_per_h", "found -1"),
            ('discipline = "batching"', 'discipline = "fifo"', "discipline", "found 'fifo'"),
            ('discipline = "batching"', 'discipline = "batchin"', "discipline", "did you mean 'batching'"),
            ("[limits]", "[engine]\nslots = 4\n[limits]", "(top level)", "discipline 'batching' has no slots"),
            ("tensor_parallel = [1, 2]", "tensor_parallel = [0]", "catalog.tensor_parallel[0]", "found 0"),
            ("tensor_parallel = [1, 2]", "tensor_parallel = []", "catalog.tensor_parallel", "at least 1 item"),
            ("[limits]", '[engine]\nbalancer = "best"\n[limits]', "engine", "known: least_outstanding_tokens"),
            ("[limits]", "[forecast]\nweight = 0\n[limits]", "forecast.weight", "greater than 0"),
            ("[limits]", '[engine]\non_failure = "cry"\n[limits]', "engine.on_failure", "'requeue' or 'fail'"),
            ("[limits]", "[synthetic]\nduration_s = 0\n[limits]", "synthetic.duration_s", "greater than 0"),
        ],
    )
    def test_each_mistake_is_named_with_its_field(self, load, old, new, field, says):
        found = problems(load, changed(old, new))
        assert any(problem.startswith(f"{field}: ") and says in problem for problem in found), found

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            (
                "tpot_slo_s = 0.04\n",
                "",
                "query_types[1].tpot_slo_s is missing: `batching` capacity needs one for 'rest'",
            ),
            (
                "tpot_slo_s = 0.04\n",
                "percentile_slos = { e2e_s = { p95 = 9.0 } }\n",
                "query_types[1].tpot_slo_s is missing: `batching` capacity needs one for 'rest'",
            ),
            (
                "tpot_slo_s = 0.04\n",
                "tpot_slo_s = 0.04\npercentile_slos = { ttft_s = { p20 = 1.0 } }\n",
                "query_types[1].percentile_slos: ttft_s: 'p20' is no percentile from p50 to p99.9",
            ),
            ('name = "rest"', 'name = "short"', "query_types names 'short' twice"),
            ("[catalog]", 'delay_model = "guess"\n[catalog]', "delay_model 'guess' is unknown; known: constant"),
            ('"llama-3.1-8b"', '"llama-3.1-8"', "catalog: model 'llama-3.1-8' is unknown; did you mean 'llama-3.1-8b'"),
            ('"llama-3.1-8b"', '"qwen3-8b"', "catalog: qwen3-8b: no error is known, and none can be planned with"),
            ('"l40s-fp8"', '"l40s-fp9"', "catalog: tier 'l40s-fp9' is unknown; did you mean 'l40s-fp8'"),
            (
                "[limits]",
                'price_usd_per_gpu_h = { "h200" = 1 }\n[limits]',
                "catalog: price of 'h200': no such tier or GPU",
            ),
            (
                "tensor_parallel = [1, 2]",
                "tensor_parallel = [3]",
                "not divisible by any tensor-parallel degree of (3,)",
            ),
            ("[catalog]", '[catalog]\nfile = "gone.toml"', "gone.toml: cannot be read: No such file"),
        ],
    )
    def test_parts_must_fit_together(self, load, old, new, says):
        (found,) = problems(load, changed(old, new))
        assert says in found

    def test_the_model_that_fits_no_tier_is_told_what_it_needs(self, load):
        text = changed('"llama-3.1-8b"', '"llama-3.1-70b"').replace("parallel = [1, 2]", "parallel = [1]")
        (found,) = problems(load, text)
        assert found.startswith(
            "catalog: model 'llama-3.1-70b' fits no tier: on l40s-fp8, the largest for it, its weights"
        )
        assert "but 1 x 48 GB at 90% utilisation is 43.2 GB" in found

    def test_it_is_skipped_beside_one_that_fits(self, load):
        text = changed('"llama-3.1-8b"', '"llama-3.1-8b", "llama-3.1-70b"').replace(
            "parallel = [1, 2]", "parallel = [1]"
        )
        scenario = load(text)
        (found,) = scenario.choice.skipped
        assert found.startswith("model 'llama-3.1-70b' fits no tier: on l40s-fp8, the largest for it, its weights")
        assert list(scenario.catalog.models) == ["llama-3.1-8b"]

    def test_a_tpot_limit_is_not_needed_for_paper_rows(self, load):
        text = changed('capacity = "batching"', 'capacity = "paper"').replace("tpot_slo_s", "ttft_slo_s")
        assert load(text).types[0].tpot_slo_s is None

    def test_all_mistakes_are_reported_together(self, load):
        text = changed("delay_slo_s = 10.0", "delay_slo = 10.0").replace("20.0", "-1.0")
        fields = [problem.split(":")[0] for problem in problems(load, text)]
        assert sorted(fields) == ["limits.budget_usd_per_h", "query_types[0].delay_slo", "query_types[0].delay_slo_s"]

    def test_broken_toml_names_the_line(self, load):
        (found,) = problems(load, "name = ?\n")
        assert found.startswith("expected TOML: ")
        assert "line 1" in found

    def test_files_that_cannot_be_read(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file"):
            load_scenario(str(tmp_path / "none.toml"))
        with pytest.raises(InputError, match="cannot be read: Is a directory"):
            load_scenario(f"{tmp_path}/")
        (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match=r"binary\.toml: expected TOML"):
            load_scenario(str(tmp_path / "binary.toml"))

    def test_an_unknown_name_is_told_the_known_ones(self):
        with pytest.raises(InputError, match=r"unknown scenario 'azure-2022'; did you mean 'azure-2023'; or a path"):
            load_scenario("azure-2022")
        with pytest.raises(InputError, match="expected one of azure-2023, paper"):
            load_scenario("zzz")


def refuse_unmatched(scenario, requests, chunk=2):
    """Look at a trace in chunks, as a survey does."""
    unmatched = Unmatched(scenario)
    for start in range(0, len(requests), chunk):
        rows = slice(start, start + chunk)
        columns = {
            name: getattr(requests, name)[rows] for name in ("arrival_s", "source", "input_tokens", "output_tokens")
        }
        unmatched.look_at(Trace(sources=requests.sources, start=requests.start, **columns))
    unmatched.refuse()


class TestChanges:
    """A changed scenario is one of a file that states the same."""

    def test_a_slowed_scenario_stays_slow_when_something_else_changes(self, load):
        scenario = load()
        key = scenario.configurations[0].deployment_key
        alone_s = scenario.step_cost(key).base_s
        for changed_later in (
            with_changes(slowed(scenario, 1.5), {"limits.cap": 0.5}),
            with_forecast(slowed(scenario, 1.5), "last"),
            slowed(with_changes(scenario, {"limits.cap": 0.5}), 1.5),
        ):
            assert changed_later.step_cost(key).base_s == pytest.approx(1.5 * alone_s)
        roofline = with_delay_model(slowed(scenario, 1.5), "roofline")
        fast = with_delay_model(scenario, "roofline")
        assert roofline.step_cost(key).base_s == pytest.approx(1.5 * fast.step_cost(key).base_s)
        assert slowed(slowed(scenario, 1.5), 2).step_cost(key).base_s == pytest.approx(3 * alone_s)

    @pytest.mark.parametrize(
        ("old", "new", "changes"),
        [
            ("20.0", "-1.0", {"limits.budget_usd_per_h": -1.0}),
            ("20.0", "0.1", {"limits.budget_usd_per_h": 0.1}),
            ("20.0", "20.0\ncup = 1.0", {"limits.cup": 1.0}),
            ("[limits]", "[forecast]\nmethod = 'guess'\n[limits]", {"forecast.method": "guess"}),
            ("tensor_parallel = [1, 2]", "tensor_parallel = [3]", {"catalog.tensor_parallel": [3]}),
            ('"llama-3.1-8b"', '"llama-3.1-8"', {"catalog.models": ["llama-3.1-8"]}),
            ("[limits]", "[nothing]\nx = 1\n[limits]", {"nothing.x": 1}),
        ],
    )
    def test_a_change_is_refused_as_a_file_would_be(self, load, old, new, changes):
        scenario = load()
        with pytest.raises(InputError) as caught:
            with_changes(scenario, changes)
        with pytest.raises(InputError) as of_file:
            load(changed(old, new))
        assert caught.value.problems == of_file.value.problems

    def test_all_that_follows_from_a_field_changes_with_it(self, load):
        scenario = with_changes(load(), {"catalog.tiers": ["l40s-fp8"], "catalog.price_usd_per_gpu_h.l40s-fp8": 9.0})
        assert {c.tier for c in scenario.configurations} == {"l40s-fp8"}
        assert scenario.catalog.tiers["l40s-fp8"].price_usd_per_gpu_h == 9.0
        assert load().catalog.tiers["l40s-fp8"].price_usd_per_gpu_h != 9.0

    def test_a_field_without_fields_is_told(self, load):
        with pytest.raises(InputError, match=r"mine.toml: name.x: name has no fields of its own"):
            with_changes(load(), {"name.x": 1})

    @pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_world_is_slower_by_a_number(self, load, factor):
        with pytest.raises(InputError, match="factor on all delays has to be a number above zero"):
            slowed(load(), factor)


class TestClassification:
    def test_the_first_rule_that_matches_counts(self, load):
        """A chat of 60 tokens matches both rules, one of 60 in code only the second."""
        requests = trace(("conv", 60, 20), ("code", 60, 20), ("conv", 60, 51), ("conv", 100, 20), ("conv", 49, 50))
        assert classify(load(), requests).tolist() == [0, 1, 1, 1, 0]

    def test_both_ends_belong_to_a_range(self, load):
        requests = trace(("conv", 10, 0), ("conv", 99, 50), ("conv", 10**6, 10**6))
        assert classify(load(), requests).tolist() == [0, 0, 1]

    def test_a_source_that_the_trace_does_not_have(self, load):
        requests = trace(("chat", 60, 20), sources=("chat",))
        assert classify(load(), requests).tolist() == [1]

    def test_an_empty_trace(self, load):
        assert classify(load(), trace()).tolist() == []

    def test_requests_without_a_type_are_counted_and_shown(self, load):
        good, bad = ("conv", 20, 5), ("code", 7, 3)
        requests = trace(good, *[bad] * 7, good)
        with pytest.raises(InputError) as caught:
            refuse_unmatched(load(), requests)
        head, *lines = str(caught.value).splitlines()
        assert head == "scenario small: no query type matches 7 of 9 requests:"
        assert lines[0] == "  request 1: source 'code', 7 input and 3 output tokens"
        assert len(lines) == 7
        assert lines[-2] == "  and 2 more"
        assert lines[-1].startswith("the query types are of the sources 'conv'; the trace has 'code'. conv=FILE gives ")

    def test_one_request_without_a_type(self, load):
        with pytest.raises(InputError) as caught:
            refuse_unmatched(load(), trace(("conv", 60, 20), ("conv", 9, 1)))
        assert str(caught.value).splitlines() == [
            "scenario small: no query type matches 1 of 2 requests:",
            "  request 1: source 'conv', 9 input and 1 output tokens",
        ]
