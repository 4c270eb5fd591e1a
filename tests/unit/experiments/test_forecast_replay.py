"""Forecasts in a replay: the ordinary one is what it always was, others can be named, the oracle knows what comes."""

import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.replay.controller import PlanningController
from experiments.replay.run import ReplayOptions, horizon_of, replay_policy, survey
from experiments.report import replay_figures as figures
from experiments.scenario.demand import ArrivalCounts, DemandForecast, expected_demand
from experiments.scenario.scenario import classify, load_scenario, with_changes, with_forecast
from experiments.scenario.schema import ForecastChoice
from policies.checking.checked_plan import checked_plan
from policies.registry import make_policy
from simulator.engine import Observation
from simulator.errors import InputError
from simulator.workload import Trace
from traces.forecast.registry import FORECASTERS
from traces.source import TraceInMemory

SCENARIO = load_scenario("azure-2023")
TYPES = len(SCENARIO.types)


def observed(now_s, arrived):
    sums = np.zeros((6, TYPES), dtype=np.int64)
    sums[0], sums[1] = arrived, 100 * np.asarray(arrived)
    return Observation(now_s, *sums)


@settings(max_examples=50)
@given(
    weight=st.floats(0.01, 1.0),
    margin=st.floats(0.5, 2.0),
    interval_s=st.sampled_from([60.0, 300.0, 77.7]),
    parts=st.lists(
        st.tuples(st.floats(0.001, 1.0), st.lists(st.integers(0, 9999), min_size=TYPES, max_size=TYPES)), max_size=20
    ),
)
def test_the_ordinary_forecast_is_what_it_was_to_the_bit(weight, margin, interval_s, parts):
    """The formula of the first version, in its order of operations, for intervals and parts of them."""
    forecast = DemandForecast(SCENARIO.types, ForecastChoice(weight=weight, margin=margin), interval_s)
    rate, now_s = expected_demand(SCENARIO.types).arrival_per_h, 0.0
    for part, arrived in parts:
        before_s, now_s = now_s, now_s + part * interval_s
        forecast.observe(observed(now_s, arrived))
        rate = (1 - weight) * rate + weight * np.array(arrived) / ((now_s - before_s) / 3600.0)
    assert np.array_equal(forecast.demand().arrival_per_h, np.maximum(rate * margin, 1.0))


def trace_of(seed=0, count=3000, span_s=1000.0):
    rng = np.random.default_rng(seed)
    arrival_s = np.sort(rng.uniform(0, span_s, count))
    arrival_s[: count // 10] = np.floor(arrival_s[: count // 10])  # some on the ends of intervals
    return Trace(
        sources=("conv", "code"),
        arrival_s=np.sort(arrival_s),
        source=rng.integers(0, 2, count).astype(np.int32),
        input_tokens=rng.integers(10, 4000, count).astype(np.int32),
        output_tokens=rng.integers(1, 200, count).astype(np.int32),
    )


class InChunks(TraceInMemory):
    """The same trace, in small pieces."""

    def __init__(self, trace, rows):
        super().__init__(trace)
        self._pieces = [trace.rows(slice(k, k + rows)) for k in range(0, len(trace), rows)]

    def survey(self, visit=None):
        for piece in self._pieces:
            if visit is not None:
                visit(piece)
        return super().survey()

    def chunks(self):
        yield from self._pieces


class Spy:
    """Notes what the forecast says and what the engine then sees."""

    def __init__(self, monkeypatch):
        self.seen, self.planned = [], []
        inner = PlanningController.replan

        def replan(controller, seen, incumbent):
            self.seen.append(seen.arrived.copy())
            plan = inner(controller, seen, incumbent)
            self.planned.append(controller._forecast.demand().arrival_per_h)
            return plan

        monkeypatch.setattr(PlanningController, "replan", replan)


@pytest.mark.parametrize("interval_s", [60.0, 97.3, 400.0, 5000.0])
@pytest.mark.parametrize("counted", [None, 1.0, 0.5])
def test_the_oracle_plans_for_what_the_engine_then_sees(monkeypatch, interval_s, counted):
    """Whether the survey counted or not, or other intervals; the last interval is cut off by the horizon."""
    spy = Spy(monkeypatch)
    scenario = with_forecast(SCENARIO, "oracle")
    arriving = survey(scenario, InChunks(trace_of(), 123), count_every_s=counted and counted * interval_s)
    assert (arriving.counts is None) == (counted is None)
    replay_policy(scenario, arriving, make_policy("gh"), ReplayOptions(interval_s=interval_s, seed=0))
    margin = scenario.file.forecast.margin
    for planned, came in zip(spy.planned, spy.seen[1:], strict=False):
        assert planned == pytest.approx(np.maximum(margin * came / (interval_s / 3600), 1.0))
    trace = trace_of()
    start_s = (len(spy.planned) - 1) * interval_s
    left = np.bincount(classify(scenario, trace)[trace.arrival_s >= start_s], minlength=TYPES)
    hours = (min(start_s + interval_s, horizon_of(trace.span_s)) - start_s) / 3600
    assert spy.planned[-1] == pytest.approx(np.maximum(margin * left / hours, 1.0))


def test_counts_leave_out_what_matches_no_type_and_end_with_the_last_arrival():
    only = with_changes(SCENARIO, {"query_types": SCENARIO.types[:1]})
    trace = trace_of(count=500)
    counts = ArrivalCounts(only, 60.0)
    counts.look_at(trace)
    counts.look_at(trace.rows(slice(0)))
    per_h = counts.per_h(horizon_of(trace.span_s))
    assert len(per_h) == int(trace.span_s // 60) + 1
    assert (per_h.sum(axis=0) / 60).tolist() == pytest.approx([(classify(only, trace) == 0).sum()])


@pytest.mark.parametrize("name", [name for name in FORECASTERS if name != "oracle"])
def test_before_the_first_request_every_forecast_is_what_is_expected(name):
    forecast = DemandForecast(SCENARIO.types, ForecastChoice(method=name), 300.0)
    forecast.observe(observed(0.0, [99] * TYPES))
    assert np.array_equal(forecast.demand().arrival_per_h, expected_demand(SCENARIO.types).arrival_per_h)


def test_a_higher_quantile_plans_for_more():
    demands = []
    for quantile in (0.5, 0.9, 0.99):
        forecast = DemandForecast(SCENARIO.types, ForecastChoice(quantile=quantile, margin=1.0), 300.0)
        for interval in range(1, 30):
            forecast.observe(observed(300.0 * interval, [200 + 37 * (interval % 5)] * TYPES))
        demands.append(forecast.demand().arrival_per_h)
    assert (np.diff(demands, axis=0) > 0).all()


def test_a_policy_that_asks_for_quantiles_of_the_demand_gets_them(monkeypatch):
    """Those of the forecast, relative to what is planned for; others get none, and the same plans as before."""
    problems = []

    def noting(policy, problem, **others):
        problems.append(problem)
        return checked_plan(policy, problem, **others)

    monkeypatch.setattr("experiments.replay.controller.checked_plan", noting)
    monkeypatch.setattr("policies.robust.policy.EFFORT", 10)
    arriving = survey(SCENARIO, InChunks(trace_of(), 1000))
    options = ReplayOptions(interval_s=300.0, seed=0)
    replay_policy(SCENARIO, arriving, make_policy("gh"), options)
    plain, problems[:] = list(problems), []
    assert [problem.demand_quantiles for problem in plain] == [None] * len(plain)
    replay_policy(SCENARIO, arriving, make_policy("robust[mean:gh]"), options)
    assert len(problems) == len(plain) > 2
    forecast = DemandForecast(SCENARIO.types, SCENARIO.file.forecast, 300.0)
    for problem, other in zip(problems, plain, strict=True):
        assert np.array_equal(problem.arrival_per_h, other.arrival_per_h)
        known = problem.demand_quantiles
        assert known.levels == (0.1, 0.9)
        assert known.factor.shape == (2, TYPES)
        assert (known.factor[0] < known.factor[1]).all()
    expected = forecast._arrivals.forecast([0.1, 0.9]).quantiles[0].T / forecast.demand().arrival_per_h
    assert np.array_equal(problems[0].demand_quantiles.factor, expected)
    assert not np.allclose(problems[0].demand_quantiles.factor, problems[-1].demand_quantiles.factor)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "method", "quantile"),
        [("last", "last", None), ("adaptive:p90", "adaptive", 0.9), (" ewma:p97.5 ", "ewma", 0.975)],
    )
    def test_a_name_and_perhaps_a_quantile(self, text, method, quantile):
        choice = with_forecast(SCENARIO, text).file.forecast
        assert (choice.method, choice.quantile) == (method, quantile)
        assert choice.label == text.strip()
        unchanged = {"method": "ewma", "quantile": None}
        assert choice.model_copy(update=unchanged) == SCENARIO.file.forecast

    @pytest.mark.parametrize("text", ["", "ewma:", "ewma:90", "ewma:p0", "ewma:p100", "ewma:p9:p5", "emwa", ":p90"])
    def test_what_is_none(self, text):
        with pytest.raises(InputError, match="--forecast: "):
            with_forecast(SCENARIO, text)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('method = "emwa"', "forecast: method 'emwa' is unknown; did you mean 'ewma'"),
            ("quantile = 1.0", "forecast.quantile: "),
            ("season_s = 0", "forecast.season_s: "),
        ],
    )
    def test_scenarios_say_it_too(self, tmp_path, line, expected):
        text = shipped_text().replace("[forecast]\n", f"[forecast]\n{line}\n")
        path = tmp_path / "mine.toml"
        path.write_text(text)
        with pytest.raises(InputError, match=expected):
            load_scenario(str(path))
        path.write_text(text.replace(line, 'method = "seasonal"\nquantile = 0.9\nseason_s = 3600'))
        assert load_scenario(str(path)).file.forecast.label == "seasonal:p90"


def shipped_text():
    return (resources.files("experiments") / "scenarios" / "azure-2023.toml").read_text("utf-8")


class TestCommand:
    @pytest.fixture
    def scenario(self, tmp_path):
        path = tmp_path / "short.toml"
        path.write_text(shipped_text() + "\n[synthetic]\nduration_s = 400\n")
        return path

    def test_the_forecast_is_part_of_what_was_run(self, run_cli, scenario, tmp_path, monkeypatch):
        monkeypatch.setattr(figures, "draw_replay", lambda *_: [])
        specifications = {}
        for name in ("ewma", "oracle", "last:p90"):
            out = tmp_path / name.replace(":", "-")
            command = ["replay", "--scenario", scenario, "--policy", "gh", "--interval", "1m", "--out", out]
            done = run_cli(*command, "--forecast", name)
            assert done.code == 0, done.stderr
            assert (", forecast " in done.stdout.partition("\n")[0]) == (name != "ewma")
            specifications[name] = json.loads((out / "run.json").read_text())
        last = specifications["last:p90"]
        assert last["options"]["forecast"] == "last:p90"
        assert last["scenario"]["forecast"] == {
            "method": "last",
            "weight": 0.5,
            "margin": 1.2,
            "quantile": 0.9,
            "season_s": 86400.0,
        }
        assert len({specification["content_hash"] for specification in specifications.values()}) == 3

    def test_named_or_not_the_ordinary_forecast_gives_the_same(self, run_cli, scenario):
        command = ["replay", "--scenario", scenario, "--policy", "gh", "--interval", "1m", "--json"]
        plain, named, other = (
            {k: v for k, v in json.loads(run_cli(*command, *more).stdout)["runs"][0].items() if not k.endswith("_s")}
            for more in ([], ["--forecast", "ewma"], ["--forecast", "last"])
        )
        assert plain == named
        assert plain != other

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--policy", "gh", "--forecast", "arima"], "--forecast: there is no forecaster 'arima'"),
            (["--policy", "gh", "--forecast", "seasonal", "--interval", "7m"], "is no whole number of intervals"),
            (["--forecast", "last", "--plan", "plan.json"], "--plan and --forecast exclude each other"),
        ],
    )
    def test_bad_input(self, run_cli, scenario, arguments, expected):
        done = run_cli("replay", "--scenario", scenario, *arguments)
        assert (done.code, done.stdout) == (2, "")
        assert expected in done.stderr.replace("\n", " ")

    def test_a_static_policy_plans_on_what_is_expected_whatever_the_forecast(self, run_cli, scenario):
        command = ["replay", "--scenario", scenario, "--policy", "static[gh]", "--interval", "1m", "--json"]
        runs = [json.loads(run_cli(*command, "--forecast", name).stdout)["runs"][0] for name in ("ewma", "adaptive")]
        assert runs[0]["cost_usd"] == runs[1]["cost_usd"]
        assert runs[0]["e2e_s"] == runs[1]["e2e_s"]
