"""Backtests: scores by hand, counts from traces and tables, the command, and what the Azure 2024 week says."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from simulator.errors import InputError
from simulator.workload import Trace
from traces.forecast.backtest import LEVELS, Backtest, backtest
from traces.forecast.counts import RequestCounter, ServiceCounts, is_count_table, read_count_table
from traces.forecast.registry import FORECASTERS
from traces.io.parquet import write_parquet
from traces.synthetic.profile import load_profile

HEADER = "service,hour_utc,requests,method"


def run_of(counts, mean, quantiles):
    arrays = [np.array(values, dtype=np.float64) for values in (counts, mean, quantiles)]
    return Backtest(
        forecaster="x", service="s", first=1, counts=arrays[0], mean=arrays[1], quantiles=arrays[2], seconds=0.0
    )


class TestScores:
    def test_by_hand(self):
        score = run_of([10, 0, 20], [8, 3, 25], [[8, 12, 10], [3, 1, 0], [20, 10, 19]]).score()
        assert score.intervals == 3
        assert score.mape == pytest.approx((2 / 10 + 5 / 20) / 2), "no percentage of nothing"
        assert score.wape == pytest.approx((2 + 3 + 5) / 30)
        assert score.pinball["p50"] == pytest.approx((0.5 * 2 + 0.5 * 3 + 0) / 30)
        assert score.pinball["p90"] == pytest.approx((0.1 * 2 + 0.1 * 1 + 0.9 * 10) / 30)
        assert score.pinball["p95"] == pytest.approx((0 + 0 + 0.95 * 1) / 30)
        assert score.coverage == {"p50": pytest.approx(2 / 3), "p90": pytest.approx(2 / 3), "p95": pytest.approx(2 / 3)}

    def test_where_nothing_ever_came(self):
        score = run_of([0, 0], [1, 1], [[1, 1, 1]] * 2).score()
        assert (score.mape, score.wape, score.pinball["p90"]) == (None, None, None)

    def test_the_true_quantile_has_the_least_pinball_loss(self):
        """Of the draws themselves, at every level: a quantile that is off by a tenth costs more."""
        draws = np.random.default_rng(0).lognormal(3.0, 1.0, 2001)
        true = np.quantile(draws, list(LEVELS.values()))
        best = run_of(draws, draws, np.tile(true, (2001, 1))).score().pinball
        for factor in (0.9, 1.1):
            other = run_of(draws, draws, np.tile(factor * true, (2001, 1))).score().pinball
            assert all(other[level] > best[level] for level in LEVELS)


class TestBacktest:
    def test_each_interval_is_forecast_from_those_up_to_the_horizon_before(self):
        counts = np.arange(1.0, 31.0)
        for horizon in (1, 3):
            run = backtest("last", ServiceCounts("s", counts), season=24, first=5, horizon=horizon)
            assert run.counts.tolist() == counts[5:].tolist()
            assert run.mean.tolist() == counts[5 - horizon : -horizon].tolist()
            assert run.quantiles.shape == (25, len(LEVELS))

    @pytest.mark.parametrize("horizon", [1, 4])
    def test_the_oracle_makes_no_error(self, horizon):
        counts = np.random.default_rng(1).poisson(20.0, 50).astype(np.float64)
        score = backtest("oracle", ServiceCounts("s", counts), season=24, first=horizon, horizon=horizon).score()
        assert (score.mape, score.wape, set(score.pinball.values())) == (0.0, 0.0, {0.0})
        assert set(score.coverage.values()) == {1.0}

    @pytest.mark.parametrize("name", [name for name in FORECASTERS if name != "oracle"])
    def test_what_comes_later_changes_nothing_that_was_said(self, name):
        counts = np.random.default_rng(2).poisson(20.0, 60).astype(np.float64)
        other = counts.copy()
        other[40:] *= 7
        one, two = (backtest(name, ServiceCounts("s", c), season=12, first=2, horizon=2) for c in (counts, other))
        known = 40 + 2 - 2  # interval 41 is forecast from those up to 39
        assert np.array_equal(one.mean[:known], two.mean[:known])
        assert np.array_equal(one.quantiles[:known], two.quantiles[:known])
        assert not np.array_equal(one.mean[known:], two.mean[known:])


def test_counts_of_a_trace_by_chunks():
    """Whole intervals of ten seconds: the requests after 50 s, within the last one, are left out."""
    rng = np.random.default_rng(3)
    arrival_s = np.sort(np.append(rng.uniform(0, 57.0, 400), [20.0, 57.0]))
    kind = rng.integers(0, 2, 402).astype(np.int32)
    none = np.zeros(402, dtype=np.int32)
    trace = Trace(sources=("a", "b"), arrival_s=arrival_s, source=kind, input_tokens=none, output_tokens=none)
    counter = RequestCounter(10.0)
    for start in range(0, 402, 37):
        counter.look_at(trace.rows(slice(start, start + 37)))
    for number, service in enumerate(counter.services()):
        assert service.service == "ab"[number]
        expected = [((arrival_s >= t) & (arrival_s < t + 10) & (kind == number)).sum() for t in range(0, 50, 10)]
        assert service.counts.tolist() == expected


class TestCountTable:
    @pytest.fixture
    def table(self, tmp_path):
        def write(*rows, header=HEADER):
            path = tmp_path / "counts.csv"
            path.write_text("".join(f"{row}\n" for row in (header, *rows)))
            return path

        return write

    def test_services_each_with_hours_of_its_own(self, table):
        path = table("a,2024-05-10T23:00:00Z,5,x", "b,2024-05-12T00:00:00Z,7,x", "a,2024-05-11T00:00:00,6.5,x")
        assert is_count_table(path)
        assert [(s.service, s.counts.tolist()) for s in read_count_table(path)] == [("a", [5, 6.5]), ("b", [7])]

    def test_other_tables_are_none(self, table, tmp_path):
        assert not is_count_table(table(header="TIMESTAMP,ContextTokens,GeneratedTokens"))
        assert not is_count_table(tmp_path / "nothing")

    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            ((), "at least one row"),
            (("a,2024-05-10T00:00:00Z,-1,x",), r"line 2: requests: expected a number from zero on, found '-1'"),
            (("a,2024-05-10T00:00:00Z,nan,x",), "line 2: requests"),
            (("a,2024-05-10T00:00:00Z",), "line 2: requests"),
            (("a,noon,1,x",), "line 2: hour_utc: expected a time"),
            (("a,2024-05-10T00:00:00Z,1,x", "a,2024-05-10T02:00:00Z,1,x"), "line 3: a: expected the hour after"),
            (("a,2024-05-10T00:00:00Z,1,x", "a,2024-05-10T00:00:00Z,1,x"), "line 3: a: expected the hour after"),
        ],
    )
    def test_what_cannot_be_used(self, table, rows, expected):
        with pytest.raises(InputError, match=expected):
            read_count_table(table(*rows))


class TestCommand:
    @pytest.fixture
    def table(self, tmp_path):
        """Three days of two services."""
        rng = np.random.default_rng(4)
        rows = [
            f"{service},2024-05-{10 + hour // 24}T{hour % 24:02}:00:00Z,{rng.poisson(1000 + 50 * (hour % 24))},x"
            for service in ("code", "conv")
            for hour in range(72)
        ]
        path = tmp_path / "hours.csv"
        path.write_text("\n".join([HEADER, *rows]) + "\n")
        return path

    @pytest.fixture
    def trace(self, tmp_path):
        """Ten minutes of two sources."""
        rng = np.random.default_rng(5)
        tokens = np.full(600, 10, dtype=np.int32)
        path = tmp_path / "trace.parquet"
        trace = Trace(
            sources=("chat", "code"),
            arrival_s=np.sort(rng.uniform(0, 605.0, 600)),
            source=rng.integers(0, 2, 600).astype(np.int32),
            input_tokens=tokens,
            output_tokens=tokens.copy(),
        )
        write_parquet(path, [trace])
        return path

    def test_json_is_one_object_with_a_score_for_each(self, run_cli, table):
        done = run_cli("trace", "backtest", table, "--json")
        assert (done.code, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        assert [(s["service"], s["forecaster"]) for s in result["scores"]] == [
            (service, name) for service in ("code", "conv") for name in FORECASTERS
        ]
        assert {s["intervals"] for s in result["scores"]} == {48}
        assert "seconds" not in done.stdout
        assert result["options"]["warmup_s"] == 86400.0
        assert run_cli("trace", "backtest", table, "--json").stdout == done.stdout

    def test_scores_are_those_of_the_forecasts_that_are_written(self, run_cli, table, tmp_path):
        out = tmp_path / "out"
        done = run_cli("trace", "backtest", table, "--forecaster", "ewma", "--horizon", "3", "--out", out, "--json")
        score = json.loads(done.stdout)["scores"][1]
        assert json.loads((out / "backtest.json").read_text()) == json.loads(done.stdout)
        frame = pd.read_parquet(out / "forecasts.parquet")
        own = frame[frame["service"] == score["service"]]
        assert own["interval"].tolist() == list(range(24, 72))
        assert score["mape"] == pytest.approx((own["mean"] - own["requests"]).abs().div(own["requests"]).mean())
        assert score["coverage"]["p90"] == pytest.approx((own["requests"] <= own["p90"]).mean())

    def test_a_trace_is_counted(self, run_cli, trace):
        done = run_cli(
            "trace", "backtest", trace, "--interval", "30s", "--season", "2m", "--warmup", "0", "--forecaster", "last"
        )
        assert (done.code, done.stderr) == (0, "")
        assert "chat: 20 intervals of 30s, scored from number 1 on" in done.stdout
        assert "code: 20 intervals" in done.stdout
        assert done.stdout.count("last ") == 2

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--forecaster", "arima"], "--forecaster: there is no forecaster 'arima'"),
            (["--interval", "5m"], "--interval: .*expected 1h"),
            (["--season", "90m"], "season of 5400 s is no whole number of intervals of 3600 s"),
            (["--warmup", "3d"], "code: 72 whole intervals of 1h leave none to score after the first 72"),
            (["--warmup", "soon"], "--warmup: 'soon' is no duration"),
            (["--weight", "0"], "--weight: expected a number above 0"),
            (["--weight", "nan"], "--weight: expected a number above 0"),
        ],
    )
    def test_bad_options(self, run_cli, table, arguments, expected):
        done = run_cli("trace", "backtest", table, *arguments)
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert re.search(expected, done.stderr.replace("\n", " "))

    def test_a_profile_with_counts_per_hour_is_a_table_of_them(self, run_cli):
        done = run_cli("trace", "backtest", "azure-2024", "--forecaster", "last", "--json")
        assert (done.code, done.stderr) == (0, "")
        curves = {source.name: np.array(source.requests_per_h) for source in load_profile("azure-2024").sources}
        scores = {score["service"]: score for score in json.loads(done.stdout)["scores"]}
        assert set(scores) == set(curves)
        for name, counts in curves.items():
            error = np.abs(np.diff(counts))[23:].sum() / counts[24:].sum()
            assert scores[name]["wape"] == pytest.approx(error)

    @pytest.mark.parametrize("name", ["nothing.csv", "azure-2023"])
    def test_what_has_no_counts(self, run_cli, name):
        done = run_cli("trace", "backtest", name)
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {name}: ")

    def test_the_list_names_every_forecaster(self, run_cli):
        done = run_cli("list", "forecasters", "--json")
        assert [row["name"] for row in json.loads(done.stdout)["forecasters"]] == list(FORECASTERS)


@pytest.fixture(scope="module")
def scores(data_dir):
    services = read_count_table(data_dir / "traces" / "azure2024_hourly_requests.csv")
    assert [len(service.counts) for service in services] == [168, 168]
    return {
        (service.service, name): backtest(name, service, season=24, first=24).score()
        for service in services
        for name in FORECASTERS
    }


class TestAzure2024:
    """Azure LLM inference trace 2024, Microsoft, CC-BY-4.0; a week of hours of each service."""

    @pytest.mark.parametrize("service", ["code", "conv"])
    def test_after_the_first_day_adaptive_beats_the_simple_ones_clearly(self, scores, service):
        own = scores[service, "adaptive"]
        for name in ("last", "ewma", "seasonal-naive"):
            other = scores[service, name]
            assert own.mape < 0.7 * other.mape
            assert own.wape < 0.7 * other.wape
            assert all(own.pinball[level] < other.pinball[level] for level in LEVELS)

    @pytest.mark.parametrize("service", ["code", "conv"])
    def test_its_quantiles_cover_about_what_they_say(self, scores, service):
        """Of 144 hours: two standard errors of a share of 90 % are 5 %."""
        coverage = scores[service, "adaptive"].coverage
        assert coverage["p90"] == pytest.approx(0.9, abs=2 * math.sqrt(0.9 * 0.1 / 144) + 0.01)
        assert coverage["p95"] == pytest.approx(0.95, abs=2 * math.sqrt(0.95 * 0.05 / 144) + 0.01)
