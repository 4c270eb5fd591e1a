"""What plans are tried on: the cut of a trace in time, draws of its first part, draws of a scenario, and too few."""

import numpy as np
import pytest

from experiments.replay.run import survey
from experiments.verify.draws import ScenarioDraws, TraceDraws, refuse_short
from simulator.errors import InputError
from simulator.ticks import TICKS_PER_S
from tests.verify_samples import draw_of, small, trace_of
from traces.source import TraceInMemory

SPAN_S, COUNT = 1000.0, 500


@pytest.fixture
def trace():
    """Every request is told by its output tokens."""
    draw = np.random.default_rng(5)
    arrival_s = np.sort(np.round(draw.uniform(0, SPAN_S, COUNT), 6))
    arrival_s[[0, -1]] = 0.0, SPAN_S
    return trace_of(arrival_s, draw.integers(1, 2000, COUNT), np.arange(1, COUNT + 1))


@pytest.fixture
def scenario(tmp_path):
    return small(tmp_path)


def seconds(draw):
    return draw.workload.arrival_tick / TICKS_PER_S


def names(draw):
    return draw.workload.output_tokens.tolist()


def equal(one, other):
    columns = ("arrival_tick", "query_type", "input_tokens", "output_tokens")
    same = all(np.array_equal(getattr(one.workload, c), getattr(other.workload, c)) for c in columns)
    return same and (one.horizon_s, one.seed) == (other.horizon_s, other.seed)


class TestOfATrace:
    def draws(self, scenario, trace, hold_out=0.2, seed=3):
        return TraceDraws(scenario, survey(scenario, TraceInMemory(trace)), hold_out=hold_out, seed=seed)

    @pytest.mark.parametrize("hold_out", [0.1, 0.2, 0.5, 0.9])
    def test_the_last_part_in_time_is_held_out(self, scenario, trace, hold_out):
        found = self.draws(scenario, trace, hold_out)
        cut_s = SPAN_S * (1 - hold_out)
        first = int((trace.arrival_s <= cut_s).sum())
        assert names(found.learning) == list(range(1, first + 1))
        assert names(found.held_out) == list(range(first + 1, COUNT + 1))
        assert seconds(found.held_out) == pytest.approx(trace.arrival_s[first:] - cut_s, abs=1e-9)
        assert (found.learning.workload.input_tokens == trace.input_tokens[:first]).all()

    def test_nothing_is_held_out_if_so_wished(self, scenario, trace):
        found = self.draws(scenario, trace, hold_out=0.0)
        assert found.held_out is None
        assert len(names(found.learning)) == COUNT

    def test_a_fresh_draw_is_as_long_as_the_part_that_it_is_drawn_from(self, scenario, trace):
        found = self.draws(scenario, trace, hold_out=0.3)
        for number in range(10):
            fresh = found.fresh(number)
            assert set(names(fresh)) < set(names(found.learning)), "nothing of the part that was held out"
            arrival_s = seconds(fresh)
            assert (np.diff(arrival_s) >= 0).all()
            assert arrival_s[0] >= 0
            assert 0.9 * 700 < arrival_s[-1] < 700
            assert fresh.horizon_s == found.learning.horizon_s == 720.0
            assert len(arrival_s) == pytest.approx(0.7 * COUNT, rel=0.2)

    def test_blocks_of_a_minute_stay_together(self, scenario, trace):
        """Most requests follow the one that they follow in the trace, at the same distance."""
        found = self.draws(scenario, trace)
        fresh = found.fresh(0)
        follows = np.diff(names(fresh)) == 1
        assert follows.mean() > 0.9
        gaps = np.diff(trace.arrival_s)[np.array(names(fresh)[:-1])[follows] - 1]
        assert np.diff(seconds(fresh))[follows] == pytest.approx(gaps, abs=1e-6)

    def test_the_same_number_the_same_draw(self, scenario, trace):
        one, again, other = (self.draws(scenario, trace, seed=seed) for seed in (3, 3, 4))
        assert equal(one.fresh(7), again.fresh(7))
        assert equal(one.learning, again.learning)
        assert not equal(one.fresh(7), one.fresh(8))
        drawn = [one.learning, one.held_out, *(one.fresh(number) for number in range(30))]
        assert len({draw.seed for draw in drawn}) == len(drawn), "the router has luck of its own on each"
        assert len({tuple(names(draw)) for draw in drawn}) == len(drawn)
        assert names(other.learning) == names(one.learning), "where the trace is cut is no matter of luck"

    def test_a_trace_shorter_than_ten_minutes_is_cut_finer(self, scenario):
        found = self.draws(scenario, trace_of(np.arange(50.0), 100, np.arange(50)), hold_out=0.0)
        runs = 1 + int((np.diff(names(found.fresh(0))) != 1).sum())
        assert 5 <= runs <= 11, "ten blocks of five seconds"

    @pytest.mark.parametrize("arrival_s", [[3.0], [0.0, 5.0], [2.0, 2.0, 2.0]])
    def test_what_cannot_be_cut_into_blocks(self, scenario, arrival_s):
        def fresh():
            return self.draws(scenario, trace_of(arrival_s, 100, 10), hold_out=0.5).fresh(0)

        with pytest.raises(InputError):
            fresh()


class TestOfAScenario:
    def test_every_seed_is_a_draw(self, scenario):
        found, next_ = ScenarioDraws(scenario, seed=3), ScenarioDraws(scenario, seed=4)
        assert found.held_out is None
        assert equal(found.fresh(0), next_.learning)
        assert equal(found.fresh(5), ScenarioDraws(scenario, seed=3).fresh(5))
        drawn = [found.learning, *(found.fresh(number) for number in range(5))]
        assert len({draw.workload.arrival_tick.tobytes() for draw in drawn}) == len(drawn)

    def test_length_and_rate(self, scenario):
        """Three requests a second, as the types expect them."""
        whole = ScenarioDraws(scenario, seed=3)
        part = ScenarioDraws(scenario, seed=3, duration_s=100.0, rate_factor=2.0)
        assert len(names(whole.learning)) == pytest.approx(900, rel=0.1)
        assert whole.learning.horizon_s == 300.0
        assert len(names(part.fresh(0))) == pytest.approx(600, rel=0.15)
        assert seconds(part.fresh(0))[-1] <= 100.0

    def test_types_of_one_source_are_told_apart_by_their_lengths(self, tmp_path):
        scenario = small(tmp_path, ('name = "chat"', 'name = "chat"\nsource = "s"'), ('"long"', '"long"\nsource = "s"'))
        workload = ScenarioDraws(scenario, seed=0).learning.workload
        assert np.bincount(workload.query_type) == pytest.approx([600, 300], rel=0.2)
        assert set(workload.input_tokens[workload.query_type == 1].tolist()) == {2500}


class TestTooFew:
    """A percentile needs 59 (p95), 299 (p99) or 2995 (p99.9) requests of each type that has it."""

    def draw(self, scenario, chat, long):
        count = chat + long
        inputs = np.where(np.arange(count) < chat, 100, 2000)
        return draw_of(scenario, trace_of(np.linspace(0, 590, count), inputs, 10), 600.0)

    @pytest.mark.parametrize(("level", "needed"), [(0.95, "59"), (0.99, "299"), (0.999, "2,995")])
    def test_one_fewer_is_refused_with_how_many_it_takes(self, scenario, level, needed):
        enough = int(needed.replace(",", ""))
        assert refuse_short(scenario, self.draw(scenario, enough, enough), level) == []
        with pytest.raises(InputError) as caught:
            refuse_short(scenario, self.draw(scenario, enough, enough - 1), level)
        (problem,) = caught.value.problems
        assert problem.startswith(f"query type 'long' has {enough - 1} requests in by hand, p{100 * level:.4g} needs ")
        assert f"needs {needed} to be told from luck" in problem

    def test_how_long_a_trace_would_do(self, scenario):
        """30 of 59 requests in 10 minutes: 19.7 min have enough."""
        with pytest.raises(InputError, match="it would take some 20 min, or a lower percentile"):
            refuse_short(scenario, self.draw(scenario, 100, 30), 0.95)

    def test_all_types_are_told(self, scenario):
        with pytest.raises(InputError) as caught:
            refuse_short(scenario, self.draw(scenario, 40, 58), 0.95)
        assert [problem.split("'")[1] for problem in caught.value.problems] == ["chat", "long"]

    def test_a_type_without_requests_is_told_and_no_mistake(self, scenario):
        assert refuse_short(scenario, self.draw(scenario, 60, 0), 0.95) == ["long"]

    def test_a_percentile_that_is_stated_counts_instead(self, tmp_path):
        scenario = small(
            tmp_path, ('name = "long"', 'name = "long"\npercentile_slos = { e2e_s = { p50 = 4, p99 = 9 } }')
        )
        with pytest.raises(InputError, match="p99 needs 299"):
            refuse_short(scenario, self.draw(scenario, 60, 298), 0.95)
        assert refuse_short(scenario, self.draw(scenario, 60, 299), 0.95) == []
