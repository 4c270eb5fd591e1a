"""The physical floor: what a request alone takes is what the engine gives it, and what no hardware can keep is told."""

import numpy as np
import pytest

from experiments.scenario.slo import PercentileSlo
from experiments.verify.floor import ROOM, alone_s, usable_routes
from experiments.verify.trial import Bench
from simulator.errors import InputError
from tests.verify_samples import (
    FAST,
    MODEL,
    NOTHING,
    SLOW,
    configuration,
    draw_of,
    of_type,
    plan_of,
    sample_of,
    small,
    trace_of,
)

MICROSECONDS = 3e-6
LENGTHS = [(1, 1), (1, 2), (100, 50), (511, 7), (512, 7), (513, 7), (1023, 300), (1024, 1), (5000, 400), (7000, 2)]


def slo(measure, limit_s, level=0.95):
    return PercentileSlo(measure=measure, level=level, limit_s=limit_s)


@pytest.fixture
def scenario(tmp_path):
    return small(tmp_path)


@pytest.mark.parametrize("tier", [SLOW, FAST])
def test_a_lone_request_takes_as_long_in_the_engine(scenario, tier):
    """Requests a minute apart, with prompts of up to fourteen steps of 512 tokens."""
    inputs, outputs = (np.array(column) for column in zip(*LENGTHS, strict=True))
    trace = trace_of(60.0 * np.arange(len(LENGTHS)), inputs, outputs)
    plan = plan_of({tier: 1}, {"chat": {tier: 1.0}, "long": {tier: 1.0}})
    table = Bench(scenario, [(), ()], 1.0).run(plan, draw_of(scenario, trace, 660.0)).requests
    assert table.served.all()
    step = scenario.step_cost(configuration(tier).deployment_key)
    own = of_type(trace.arrival_s, inputs, outputs)
    for measure in ("ttft_s", "tpot_s", "e2e_s"):
        expected = alone_s(step, own, 512, measure)
        assert expected == pytest.approx(getattr(table, measure), abs=MICROSECONDS, rel=0, nan_ok=True), measure


def test_there_is_no_time_alone_by_another_measure(scenario):
    step = scenario.step_cost(configuration(SLOW).deployment_key)
    with pytest.raises(ValueError, match="not known by the measure 'queue_s'"):
        alone_s(step, of_type(np.zeros(1), 900, 100), 512, "queue_s")


class TestUsable:
    """Of 100 equal chats: the time alone is one number for each of the two configurations, the slow tier first."""

    CHAT = of_type(np.arange(100.0), 900, 100)

    def floors(self, scenario, measure):
        assert [c.tier for c in scenario.configurations] == [SLOW, FAST]
        steps = [scenario.step_cost(c.deployment_key) for c in scenario.configurations]
        slow_s, fast_s = (float(alone_s(step, self.CHAT, 512, measure)[0]) for step in steps)
        assert fast_s < 0.7 * slow_s
        return fast_s, slow_s

    def usable(self, scenario, slos, guard=1.0, chat=CHAT, long=NOTHING):
        found = usable_routes(scenario, sample_of(chat, long, horizon_s=100.0), [tuple(slos), ()], guard)
        assert found[1].all(), "the other type has no limits"
        return found[0].tolist()

    @pytest.mark.parametrize("measure", ["ttft_s", "tpot_s", "e2e_s"])
    def test_routes_with_room_for_waiting(self, scenario, measure):
        fast_s, slow_s = self.floors(scenario, measure)
        assert self.usable(scenario, [slo(measure, 1.001 * slow_s / ROOM)]) == [True, True]
        assert self.usable(scenario, [slo(measure, 0.999 * slow_s / ROOM)]) == [False, True]
        assert self.usable(scenario, [slo(measure, 1.001 * fast_s / ROOM)]) == [False, True]

    def test_where_none_has_room_those_that_can_are_left(self, scenario):
        fast_s, _ = self.floors(scenario, "ttft_s")
        assert self.usable(scenario, [slo("ttft_s", 1.01 * fast_s)]) == [False, True]
        assert self.usable(scenario, [slo("ttft_s", fast_s)]) == [False, True], "a limit that is met exactly holds"

    def test_the_guard_counts(self, scenario):
        _, slow_s = self.floors(scenario, "ttft_s")
        limit = slo("ttft_s", 1.001 * slow_s / ROOM)
        assert self.usable(scenario, [limit], guard=0.98) == [False, True]

    def test_only_so_many_may_be_late(self, scenario):
        """Five long prompts of a hundred may break a limit at p95, six may not."""
        fast_s, slow_s = self.floors(scenario, "ttft_s")
        limit = [slo("ttft_s", 1.001 * slow_s / ROOM)]
        for long_ones, expected in ((5, [True, True]), (6, [False, True])):
            inputs = np.where(np.arange(100) < long_ones, 900 * 1.2 * slow_s / fast_s, 900)
            assert self.usable(scenario, limit, chat=of_type(np.arange(100.0), inputs, 100)) == expected

    def test_a_type_without_requests_is_not_judged(self, scenario):
        assert self.usable(scenario, [slo("ttft_s", 1e-9)], chat=NOTHING, long=NOTHING) == [True, True]

    def test_a_single_token_has_no_time_per_token(self, scenario):
        assert self.usable(scenario, [slo("tpot_s", 1e-9)], chat=of_type([0.0, 1.0], 900, 1)) == [True, True]

    @pytest.mark.parametrize("guard", [1.0, 0.9])
    def test_what_no_hardware_meets_is_told_with_its_floor(self, scenario, guard):
        fast_s, _ = self.floors(scenario, "ttft_s")
        limit_s = 0.99 * fast_s / guard
        with pytest.raises(InputError) as caught:
            self.usable(scenario, [slo("ttft_s", limit_s), slo("tpot_s", 1e-6), slo("e2e_s", 100.0)], guard=guard)
        ttft, tpot = caught.value.problems
        guarded = "" if guard == 1 else f" (with the guard of 0.9: {0.9 * limit_s:.4g} s)"
        assert ttft == (
            f"query type 'chat': p95 TTFT of {limit_s:g} s{guarded} cannot be met by any hardware of the scenario: "
            f"alone on the fastest, {MODEL} on {FAST} TP1 PP1, p95 of its requests is {fast_s:.4g} s"
        )
        assert "p95 TPOT of 1e-06 s" in tpot


def test_limits_that_no_configuration_meets_together(tmp_path):
    """The L40S prefills faster in 8 bits, the A100 reads its weights faster: each keeps one of two limits."""
    scenario = small(tmp_path, (f'"{SLOW}", "{FAST}"', '"l40s-fp8", "a100-80-fp16"'))
    own = of_type(np.arange(100.0), 3000, 100)
    times = {
        measure: [
            float(alone_s(scenario.step_cost(c.deployment_key), own, 512, measure)[0]) for c in scenario.configurations
        ]
        for measure in ("ttft_s", "tpot_s")
    }
    first, second = (int(np.argmin(times[measure])) for measure in times)
    assert first != second, "each is the best at one of the two"
    limits = [slo(measure, 1.01 * min(own)) for measure, own in times.items()]
    with pytest.raises(InputError, match=r"'chat': no configuration of the scenario meets p95 TTFT of .* s together"):
        usable_routes(scenario, sample_of(own, NOTHING, horizon_s=100.0), [tuple(limits), ()], 1.0)
