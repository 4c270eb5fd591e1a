"""Money, SLOs and forecasts, by hand: a run of seven requests whose every figure can be worked out on paper."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.measures.cost import (
    COST_PARTS,
    cost_by_interval,
    fleet_cost_by_phase,
    gpu_hours,
    gpus_by_tier,
    interval_edges,
    stays_of,
)
from experiments.measures.measured import Measured, Planning
from experiments.measures.metrics import measure, summary_of
from experiments.measures.tables import cost_table, interval_table, load_table
from experiments.measures.tally import Judgement, Tally, judge
from experiments.replay.run import ReplayOptions, replay_policy, survey
from experiments.scenario.demand import DemandForecast
from experiments.scenario.scenario import load_scenario
from experiments.scenario.schema import ForecastChoice
from policies.registry import make_policy
from simulator.catalog.configuration import DeploymentKey
from simulator.engine import Observation
from simulator.engine.results import COLUMN_TYPES, Rental, RequestTable, RunResult
from simulator.fleet.reality import Reality
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.ticks import TICKS_PER_S
from simulator.workload import Trace
from traces.source import TraceInMemory

# One GPU-hour costs 36 USD: a cent a second. Storing a GB costs 1e-4 USD a second.
SCENARIO = """
format = "tokenfleet-scenario/1"
name = "by-hand"
discipline = "batching"
capacity = "batching"
tpot_targets_s = [0.05]

[catalog]
models = ["llama-3.1-8b"]
tiers = ["h100-80-fp16", "l40s-fp8"]
tensor_parallel = [1, 2]
price_usd_per_gpu_h = { "h100-80" = 36.0, "l40s" = 18.0 }

[limits]
budget_usd_per_h = 500.0
storage_price_usd_per_gb_h = 0.36

[[query_types]]
name = "chat"
source = "conv"
expected = { arrival_per_h = 100, input_tokens = 50, output_tokens = 20 }
delay_slo_s = 10.0
ttft_slo_s = 2.0
tpot_slo_s = 0.5
error_slo = 0.2
delay_penalty_usd_per_query_s = 0.01
unmet_penalty_usd_per_query = 0.5
token_storage_gb_per_token = 0.001

[[query_types]]
name = "code"
expected = { arrival_per_h = 10, input_tokens = 80, output_tokens = 40 }
delay_slo_s = 30.0
tpot_slo_s = 0.5
error_slo = 0.2
difficulty = 2.0
delay_penalty_usd_per_query_s = 0.02
unmet_penalty_usd_per_query = 3.0
"""

ONE = DeploymentKey("llama-3.1-8b", "h100-80-fp16", 1, 1)
TWO = DeploymentKey("llama-3.1-8b", "h100-80-fp16", 2, 1)
OTHER = DeploymentKey("llama-3.1-8b", "l40s-fp8", 1, 1)
CHAT, CODE = 0, 1


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "by-hand.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return load_scenario(str(path))


def requests(*rows):
    """Rows of (type, arrival, first token, finish, input, output, outcome, deployment); times in s, None is never."""
    columns = list(zip(*rows, strict=True))

    def ticks(times):
        return np.array([NEVER if t is None else round(t * TICKS_PER_S) for t in times], dtype=np.int64)

    return RequestTable(
        types=("chat", "code"),
        deployments=(ONE, TWO, OTHER),
        query_type=np.array(columns[0], dtype=np.int32),
        arrival_tick=ticks(columns[1]),
        first_token_tick=ticks(columns[2]),
        finish_tick=ticks(columns[3]),
        input_tokens=np.array(columns[4], dtype=np.int64),
        output_tokens=np.array(columns[5], dtype=np.int64),
        outcome=np.array(columns[6], dtype=np.uint8),
        deployment=np.array(columns[7], dtype=np.int16),
        replica=np.zeros(len(rows), dtype=np.int32),
        start_tick=ticks(columns[1]),
        preemptions=np.zeros(len(rows), dtype=np.int32),
    )


def rental(number, deployment, rent_s, ready_s, end_s):
    gpus, price = {0: (1, 36.0), 1: (2, 72.0), 2: (1, 18.0)}[deployment]
    return Rental(
        replica=number,
        deployment=deployment,
        gpus=gpus,
        price_usd_per_h=price,
        rent_s=rent_s,
        ready_s=ready_s,
        end_s=end_s,
        kv_capacity_tokens=1000,
        kv_peak_tokens=10,
        preemptions=0,
        steps=1,
    )


SERVED = Outcome.SERVED
ROWS = (
    (CHAT, 10.0, 11.0, 15.0, 100, 9, SERVED, 0),
    (CODE, 100.0, 125.0, 125.0, 40, 1, SERVED, 2),
    (CHAT, 299.0, 300.0, 307.0, 200, 15, SERVED, 1),
    (CODE, 300.0, None, None, 10, 10, Outcome.REJECTED_UNMET, -1),
    (CODE, 400.0, None, None, 9000, 10, Outcome.REJECTED_TOO_LARGE, 0),
    (CHAT, 500.0, 501.0, None, 10, 10, Outcome.FAILED, 0),
    (CODE, 590.0, 600.0, None, 10, 90, Outcome.IN_FLIGHT, 0),
)
RENTALS = (
    rental(0, 0, -60.0, 0.0, 640.0),  # of the first fleet: its start-up lies before time zero
    rental(1, 0, 250.0, 310.0, 500.0),
    rental(2, 1, 600.0, 660.0, 640.0),  # never became ready
    rental(3, 2, 100.0, 160.0, 200.0),
    rental(4, 2, 150.0, 210.0, 280.0),
    rental(5, 2, 400.0, 460.0, 450.0),
)


def part(table, start, stop):
    """Some rows of a table, as the engine gives them: a batch."""
    columns = {name: getattr(table, name)[start:stop] for name in COLUMN_TYPES}
    return RequestTable(types=table.types, deployments=table.deployments, first_request=start, **columns)


def tally_of(scenario, result, judgement=None, interval_s=300.0, batch=3):
    """The tally of a run, taken in batches of so many requests."""
    judgement = judgement or judge(scenario, result.requests, Reality())
    tally = Tally(scenario, horizon_s=result.horizon_s, interval_s=interval_s)
    for start in range(0, len(result.requests), batch):
        rows = slice(start, start + batch)
        some = Judgement(violated=judgement.violated[rows], error=judgement.error[rows])
        tally.add(part(result.requests, start, start + batch), some)
    return tally


def summarise(scenario, run, tally):
    return summary_of(measure(Measured(scenario=scenario, run=run, tally=tally, planning=Planning())))


@pytest.fixture
def result():
    table = requests(*ROWS)
    return RunResult(
        requests=table,
        types=table.types,
        deployments=table.deployments,
        counts={outcome: int((table.outcome == outcome).sum()) for outcome in Outcome},
        rentals=RENTALS,
        plans=(),
        end_s=640.0,
        horizon_s=600.0,
        events=0,
        engine_cpu_s=0.0,
    )


class TestCost:
    def parts(self, scenario, result, interval_s=300.0):
        return cost_by_interval(scenario, result, tally_of(scenario, result, interval_s=interval_s))

    @pytest.mark.parametrize(("interval_s", "edges"), [(300.0, [0.0, 300.0, 640.0]), (1000.0, [0.0, 640.0])])
    def test_the_drain_belongs_to_the_last_interval(self, scenario, result, interval_s, edges):
        assert interval_edges(result, tally_of(scenario, result, interval_s=interval_s).starts_s).tolist() == edges

    def test_rental_counts_from_the_order_start_up_included(self, scenario, result):
        """Cents a second: 1 for the first two, 2 for the pair, half a cent for the other tier."""
        first = 0.01 * (360 + 50) + 0.005 * (100 + 130)
        second = 0.01 * (340 + 200) + 0.02 * 40 + 0.005 * 50
        assert self.parts(scenario, result)["rental"] == pytest.approx([first, second])

    def test_weights_are_stored_once_per_model_and_tier(self, scenario, result):
        """On the H100 from -60 to 640 s, however many replicas; on the L40S from 100 to 280 and from 400 to 450 s."""
        weights_gb = scenario.catalog.models["llama-3.1-8b"].weights_gb
        half_gb = weights_gb * scenario.catalog.tiers["l40s-fp8"].weight_factor
        assert half_gb == weights_gb / 2
        expected = [1e-4 * (360 * weights_gb + 180 * half_gb), 1e-4 * (340 * weights_gb + 50 * half_gb)]
        assert self.parts(scenario, result)["model_storage"] == pytest.approx(expected)

    def test_tokens_of_served_requests_are_kept_for_an_hour(self, scenario, result):
        assert self.parts(scenario, result)["token_storage"] == pytest.approx([0.36 * 0.001 * (109 + 215), 0.0])

    def test_delay_is_penalised_where_the_request_arrived(self, scenario, result):
        assert self.parts(scenario, result)["delay_penalty"] == pytest.approx([0.01 * (5 + 8) + 0.02 * 25, 0.0])

    def test_every_request_that_was_not_served_counts_as_unmet(self, scenario, result):
        """Rejected, too large, failed or still in flight: three of code, one of chat."""
        assert self.parts(scenario, result)["unmet_penalty"] == pytest.approx([0.0, 3 * 3.0 + 0.5])

    @pytest.mark.parametrize("interval_s", [1.0, 37.0, 60.0, 299.0, 600.0, 1e6])
    def test_intervals_sum_to_the_totals(self, scenario, result, interval_s):
        whole = self.parts(scenario, result, 1e6)
        for part in COST_PARTS:
            split = self.parts(scenario, result, interval_s)[part]
            assert (split >= 0).all()
            assert split.sum() == pytest.approx(whole[part].sum())

    def test_start_up_and_drain_by_themselves(self, scenario, result):
        """One H100 from -60 s on, three from 600 to 640 s, with the weights stored all the while."""
        stored_usd_per_s = 1e-4 * scenario.catalog.models["llama-3.1-8b"].weights_gb
        start_up, serving, drain = fleet_cost_by_phase(scenario, result)
        assert start_up == pytest.approx(60 * (0.01 + stored_usd_per_s))
        assert drain == pytest.approx(40 * (0.01 + 0.02 + stored_usd_per_s))
        whole = self.parts(scenario, result, 1e6)
        assert start_up + serving + drain == pytest.approx(float(whole["rental"][0] + whole["model_storage"][0]))

    def test_gpu_hours(self, result):
        assert gpu_hours(result) == pytest.approx((700 + 250 + 2 * 40 + 100 + 130 + 50) / 3600)

    def test_gpus_over_time(self, result):
        counts = gpus_by_tier(stays_of(result), np.array([-61.0, 0.0, 160.0, 200.0, 499.0, 500.0, 639.0, 640.0]))
        assert counts["h100-80-fp16"].tolist() == [0, 1, 1, 1, 2, 1, 3, 0]
        assert counts["l40s-fp8"].tolist() == [0, 0, 2, 1, 0, 0, 0, 0]


class TestTables:
    """What the charts of a replay are drawn from."""

    def test_money_by_interval(self, scenario, result):
        tally = tally_of(scenario, result)
        table = cost_table(scenario, result, tally)
        assert table[["interval_start_s", "interval_end_s"]].to_numpy().tolist() == [[0.0, 300.0], [300.0, 640.0]]
        parts = cost_by_interval(scenario, result, tally)
        assert {part: table[f"{part}_usd"].tolist() for part in COST_PARTS} == {k: v.tolist() for k, v in parts.items()}

    def test_replicas_that_are_ready(self, scenario, result):
        """The first all the time; in the fifth minute 40 s of one on the L40S, in the sixth 50 s of the second."""
        table = load_table(result, tally_of(scenario, result))
        assert table["end_s"].tolist() == [60.0 * minute for minute in range(1, 11)]
        assert table["replicas_ready"].tolist()[4:6] == pytest.approx([1 + 40 / 60, 1 + 50 / 60])
        assert (table["replicas_needed"] >= 0).all()


def violated(scenario, *rows):
    return judge(scenario, requests(*rows), Reality()).violated.tolist()


class TestJudgement:
    def test_each_limit_by_itself(self, scenario):
        """Chat: 10 s in all, 2 s to the first token, 0.5 s a token. Code has no limit on the first token."""
        rows = (
            (CHAT, 0.0, 2.0, 10.0, 10, 17, SERVED, 0),  # all three are met exactly
            (CHAT, 0.0, 1.9, 10.1, 10, 90, SERVED, 0),
            (CHAT, 0.0, 2.1, 3.0, 10, 90, SERVED, 0),
            (CHAT, 0.0, 1.0, 9.1, 10, 17, SERVED, 0),
            (CODE, 0.0, 20.0, 29.0, 10, 90, SERVED, 0),
            (CODE, 0.0, 20.0, 30.1, 10, 90, SERVED, 0),
            (CODE, 0.0, 1.0, 6.1, 10, 11, SERVED, 0),
        )
        assert violated(scenario, *rows) == [False, True, True, True, False, True, True]

    def test_one_token_has_no_time_per_token(self, scenario):
        assert violated(scenario, (CHAT, 0.0, 1.0, 9.0, 10, 1, SERVED, 0)) == [False]

    def test_only_served_requests_break_limits(self, scenario):
        late = [(CHAT, 0.0, 9.0, None, 10, 5, o, 0) for o in (Outcome.FAILED, Outcome.IN_FLIGHT)]
        assert violated(scenario, *late, (CHAT, 0.0, 9.0, 99.0, 10, 5, SERVED, 0)) == [False, False, True]

    def test_errors_are_model_times_precision_times_difficulty_times_reality(self, scenario, result):
        error = scenario.catalog.models["llama-3.1-8b"].error
        fp8 = scenario.catalog.tiers["l40s-fp8"].error_factor
        judged = judge(scenario, result.requests, Reality(error_factor=1.5)).error
        assert judged[:3] == pytest.approx([1.5 * error, 1.5 * error * fp8 * 2.0, 1.5 * error])
        assert np.isnan(judged[3:]).all()


class TestSummary:
    def test_counts_and_quantiles(self, scenario, result):
        summary = summarise(scenario, result, tally_of(scenario, result))
        expected = {"arrived": 7, "served": 3, "rejected": 2, "rejected_too_large": 1, "failed": 1, "in_flight": 1}
        assert {key: summary[key] for key in expected} == expected
        assert summary["arrived"] == sum(summary[key] for key in ("served", "rejected", "failed", "in_flight"))
        assert summary["slo_violations"] == 0
        assert summary["goodput_share"] == pytest.approx(3 / 7)
        assert summary["cost_usd"] == pytest.approx(sum(summary["cost_parts_usd"].values()))
        assert summary["cost_parts_usd"]["unmet_penalty"] == pytest.approx(9.5)
        assert summary["e2e_s"]["p50"] == pytest.approx(8.0)
        assert summary["tpot_s"]["p50"] == pytest.approx(0.5)
        assert summary["ttft_s"]["p50"] == pytest.approx(1.0)  # 1, 25, 1, 1 and 10 s
        assert summary["replicas_rented"] == 6

    @pytest.mark.parametrize("batch", [1, 2, 7, 100])
    def test_batches_do_not_matter(self, scenario, result, batch):
        one, other = (tally_of(scenario, result, batch=size) for size in (batch, 7))
        first, second = summarise(scenario, result, one), summarise(scenario, result, other)
        assert first.pop("cost_parts_usd") == pytest.approx(second.pop("cost_parts_usd"))
        assert first.pop("cost_usd") == pytest.approx(second.pop("cost_usd"))
        assert first == second
        assert one.work_s == pytest.approx(other.work_s)

    @pytest.mark.parametrize("interval_s", [60.0, 300.0, 1e6])
    def test_intervals_sum_to_the_totals(self, scenario, result, interval_s):
        judgement = judge(scenario, result.requests, Reality())
        judgement = replace(judgement, violated=np.array([True, False, True, False, False, False, False]))
        tally = tally_of(scenario, result, judgement, interval_s)
        table = interval_table(scenario, tally)
        summary = summarise(scenario, result, tally)
        for key in ("arrived", "served", "rejected", "failed", "in_flight", "slo_violations"):
            assert table[key].sum() == summary[key]

    def test_without_percentiles_there_are_none_to_count(self, scenario, result):
        assert "percentile_slos" not in summarise(scenario, result, tally_of(scenario, result))

    @pytest.mark.parametrize("batch", [1, 3, 100])
    def test_percentile_slos_by_hand(self, tmp_path, result, batch):
        """Chat: TTFT of 1, 1 s and one that failed; delay of 5 and 8 s. Code: one of three was served, after 25 s.

        `value_s` is over those that have the time: 6.5 s lie between the two, but three count.
        """
        stated = "percentile_slos = { ttft_s = { p50 = 1.0 }, e2e_s = { p50 = 7.0, p99 = 10.0 } }"
        code = "percentile_slos = { tpot_s = { p95 = 0.1 } }"
        path = tmp_path / "slos.toml"
        text = SCENARIO.replace('name = "chat"', f'name = "chat"\n{stated}')
        path.write_text(text.replace('name = "code"', f'name = "code"\n{code}'), encoding="utf-8")
        scenario = load_scenario(str(path))
        rows = summarise(scenario, result, tally_of(scenario, result, batch=batch))["percentile_slos"]
        keys = ("query_type", "measure", "percentile", "limit_s", "requests", "over", "held")
        assert [tuple(row[key] for key in keys) for row in rows] == [
            ("chat", "ttft_s", "p50", 1.0, 3, 1, True),
            ("chat", "e2e_s", "p50", 7.0, 3, 2, False),
            ("chat", "e2e_s", "p99", 10.0, 3, 1, False),
            ("code", "tpot_s", "p95", 0.1, 3, 3, False),  # the served one has a single token
        ]
        assert [row["value_s"] for row in rows] == [1.0, 6.5, pytest.approx(7.97), None]

    def test_means_are_held_against_the_limits_of_the_type(self, scenario, result):
        """Chat: 5 and 8 s on average 6.5 of 10; code: 25 of 30. Made slower or worse, the first interval breaks."""
        table = interval_table(scenario, tally_of(scenario, result))
        chat = table[(table["query_type"] == "chat") & (table["interval_start_s"] == 0.0)].iloc[0]
        assert (chat["mean_e2e_s"], chat["delay_broken"], chat["error_broken"]) == (pytest.approx(6.5), False, False)
        assert not table["delay_broken"].any()
        late = replace(result, requests=requests((CHAT, 10.0, 11.0, 24.0, 10, 99, SERVED, 0), *ROWS))
        judged = judge(scenario, late.requests, Reality())
        assert judged.violated.sum() == 1
        table = interval_table(scenario, tally_of(scenario, late, judged))
        assert not table["delay_broken"].any(), "9 s on average"
        later = replace(result, requests=requests((CHAT, 10.0, 11.0, 28.0, 10, 99, SERVED, 0), *ROWS))
        table = interval_table(scenario, tally_of(scenario, later))
        assert table["delay_broken"].tolist() == [True, False, False, False], "31 s in three requests"

    def test_mean_error(self, scenario, result):
        """A limit that is met exactly holds; without served requests there is nothing to break."""
        error = np.array([0.1, 0.3, 0.3, np.nan, np.nan, np.nan, np.nan])
        judgement = Judgement(violated=np.zeros(7, dtype=bool), error=error)
        table = interval_table(scenario, tally_of(scenario, result, judgement))
        assert table["mean_error"].tolist()[:3:2] == pytest.approx([0.2, 0.3])
        assert table["error_broken"].tolist() == [False, False, True, False]
        assert np.isnan(table["mean_e2e_s"].tolist()[1])


def observed(now_s, arrived=(), finished=()):
    """What happened since the last observation: rows of (type, input), and of (type, input, output)."""
    sums = np.zeros((6, 2), dtype=np.int64)
    for kind, h in arrived:
        sums[:2, kind] += (1, h)
    for kind, h, f in finished:
        sums[2:, kind] += (1, f, h * f, f * f)
    return Observation(now_s, *sums)


def forecast_of(scenario, weight=0.5, margin=1.2, interval_s=3600.0):
    return DemandForecast(scenario.types, ForecastChoice(weight=weight, margin=margin), interval_s)


class TestForecast:
    def test_at_the_start_it_is_what_is_expected(self, scenario):
        forecast = forecast_of(scenario)
        forecast.observe(observed(0.0))
        demand = forecast.demand()
        assert demand.arrival_per_h == pytest.approx([120.0, 12.0])
        assert demand.tokens.input_tokens == pytest.approx([50.0, 80.0])
        assert demand.tokens.output_tokens == pytest.approx([20.0, 40.0])
        assert demand.tokens.input_output == pytest.approx([1000.0, 3200.0])
        assert demand.tokens.output_squared == pytest.approx([400.0, 1600.0])

    def test_an_hour_of_forty_requests_of_which_ten_have_finished(self, scenario):
        """The prior counts for a hundred requests and has decayed to fifty."""
        forecast = forecast_of(scenario)
        forecast.observe(observed(3600.0, [(CHAT, 100)] * 40, [(CHAT, 100, 30)] * 10))
        demand = forecast.demand()
        assert demand.arrival_per_h == pytest.approx([1.2 * (0.5 * 100 + 0.5 * 40), 1.2 * 5])
        assert demand.tokens.input_tokens == pytest.approx([(50 * 50 + 40 * 100) / 90, 80.0])
        assert demand.tokens.output_tokens == pytest.approx([(50 * 20 + 10 * 30) / 60, 40.0])
        assert demand.tokens.input_output == pytest.approx([(50 * 1000 + 10 * 3000) / 60, 3200.0])
        assert demand.tokens.output_squared == pytest.approx([(50 * 400 + 10 * 900) / 60, 1600.0])

        forecast.observe(observed(5400.0, [(CODE, 8)] * 5, [(CHAT, 100, 60)] * 30 + [(CODE, 8, 4)] * 5))
        demand = forecast.demand()
        assert demand.arrival_per_h == pytest.approx([1.2 * 35, 1.2 * (0.5 * 5 + 0.5 * 5 / 0.5)])
        assert demand.tokens.input_tokens == pytest.approx([(50 * 50 + 40 * 100) / 90, (2.5 * 80 + 5 * 8) / 7.5])
        assert demand.tokens.output_tokens == pytest.approx(
            [(25 * 20 + 5 * 30 + 30 * 60) / 60, (2.5 * 40 + 5 * 4) / 7.5],
        )

    def test_a_silent_type_keeps_a_route(self, scenario):
        forecast = forecast_of(scenario, weight=0.9, margin=1.0)
        for hour in range(1, 6):
            forecast.observe(observed(3600.0 * hour))
        assert forecast.demand().arrival_per_h.tolist() == [1.0, 1.0]
        assert forecast.demand().tokens.input_tokens == pytest.approx([50.0, 80.0])

    @pytest.mark.parametrize(("weight", "silent"), [(1.0, 1), (0.5, 1200)])
    def test_silence_never_empties_the_forecast(self, scenario, weight, silent):
        """With weight one a single interval without requests, else some days of them."""
        forecast = forecast_of(scenario, weight=weight, interval_s=300.0)
        for interval in range(1, silent + 1):
            forecast.observe(observed(300.0 * interval))
        demand = forecast.demand()
        assert demand.tokens.input_tokens == pytest.approx([50.0, 80.0])
        assert demand.tokens.output_tokens == pytest.approx([20.0, 40.0])

    def test_no_time_no_news(self, scenario):
        forecast = forecast_of(scenario)
        forecast.observe(observed(0.0, [(CHAT, 1000)], [(CHAT, 1000, 1000)]))
        assert forecast.demand().tokens.input_tokens == pytest.approx([50.0, 80.0])

    def test_a_replay_never_looks_ahead(self, scenario):
        """Two days that are alike until 180 s, and then not: neither in what comes nor in how long answers become."""
        rng = np.random.default_rng(1)
        arrival_s = np.sort(rng.uniform(0.0, 400.0, 400))
        before = arrival_s < 180.0
        inputs, outputs = rng.integers(10, 500, 400), rng.integers(2, 50, 400)
        recent = before & (arrival_s > 175.0)  # unfinished at 180 s in both worlds
        outputs[recent] = 3000
        other_inputs, other_outputs = np.where(before, inputs, 9 * inputs), np.where(before, outputs, 9 * outputs)
        other_outputs[recent] = 5000
        assert recent.any()

        def plans(h, f):
            trace = Trace(
                sources=("conv",),
                arrival_s=arrival_s.copy(),
                source=np.zeros(400, dtype=np.int32),
                input_tokens=h.astype(np.int32),
                output_tokens=f.astype(np.int32),
            )
            arriving = survey(scenario, TraceInMemory(trace))
            run = replay_policy(scenario, arriving, make_policy("gh"), ReplayOptions(interval_s=60.0, seed=0))
            return [(time_s, replace(plan, seconds=None)) for time_s, plan in run.result.plans]

        first, second = plans(inputs, outputs), plans(other_inputs, other_outputs)
        known = [k for k, (time_s, _) in enumerate(first) if time_s <= 180.0]
        assert len(known) == 4
        assert [first[k] for k in known] == [second[k] for k in known]
        assert first[-1] != second[-1]
