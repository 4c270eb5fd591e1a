"""Percentile SLOs by hand: what may be stated, who is late, and from how many requests a percentile can be told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.scenario.slo import PercentileSlo, beyond, count_slo, parse_percentile, parse_slos, requests_needed
from simulator.errors import InputError
from simulator.replica.outcome import Outcome
from tests.verify_samples import not_served, requests, served

CHAT, LONG = 0, 1


def slo(measure="ttft_s", level=0.95, limit_s=2.0):
    return PercentileSlo(measure=measure, level=level, limit_s=limit_s)


@pytest.mark.parametrize(
    ("text", "level"), [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), (" p90 ", 0.9), ("p97.5", 0.975)]
)
def test_a_percentile_is_read_exactly(text, level):
    assert parse_percentile(text) == level
    assert slo(level=level).percentile == text.strip()


@pytest.mark.parametrize(
    "text", ["p30", "p49.9", "p99.95", "p101", "p100", "p", "95", "P95", "p-95", "p95%", "p9e1", ""]
)
def test_what_is_no_percentile(text):
    with pytest.raises(InputError, match=r"is no percentile from p50 to p99\.9, as in p95") as caught:
        parse_percentile(text)
    assert repr(text) in str(caught.value)


def test_limits_are_ordered_by_measure_and_percentile():
    slos = parse_slos({"e2e_s": {"p99": 20.0, "p50": 4.0}, "ttft_s": {"p95": 2.0}})
    assert [str(one) for one in slos] == ["p95 TTFT of 2 s", "p50 E2E of 4 s", "p99 E2E of 20 s"]
    assert [one.allowed for one in slos] == pytest.approx([0.05, 0.5, 0.01])
    assert parse_slos({}) == ()


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"e2e_s": {"p50": 4.0, "p99": 3.9}}, "e2e_s: p99 = 3.9 s is below p50 = 4 s: they contradict each other"),
        ({"tpot_s": {"p95": 0.05, "p95.0": 0.04}}, "tpot_s: p95 is stated twice"),
        (
            {"ttft_s": {"p95": 2.0}, "e2e_s": {"p95": 1.5}},
            "e2e_s: p95 = 1.5 s is below that of ttft_s = 2 s: they contradict each other",
        ),
        ({"ttft_s": {"p30": 2.0}}, "ttft_s: 'p30' is no percentile"),
    ],
)
def test_contradictions_are_told(stated, says):
    with pytest.raises(InputError) as caught:
        parse_slos(stated)
    (problem,) = caught.value.problems
    assert problem.startswith(says)


def test_limits_that_are_equal_or_of_other_percentiles_do_not_contradict():
    parse_slos({"e2e_s": {"p50": 4.0, "p99": 4.0}, "ttft_s": {"p50": 4.0}})
    parse_slos({"ttft_s": {"p99": 2.0}, "e2e_s": {"p50": 1.0}})


def test_all_problems_are_told_together():
    with pytest.raises(InputError) as caught:
        parse_slos({"ttft_s": {"p95": 2.0, "x": 1.0}, "tpot_s": {"p50": 1.0, "p90": 0.5}, "e2e_s": {"p95": 1.0}})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["ttft_s", "tpot_s", "e2e_s"]


@pytest.mark.parametrize(("level", "needed"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_how_many_requests_tell_a_percentile(level, needed):
    """The first number at which all in time has a probability below 5 % where a share `1 - level` is late."""
    assert requests_needed(level) == needed
    assert level**needed <= 0.05 < level ** (needed - 1)


class TestCounting:
    """Limits of 2 s to the first token, 0.5 s a token after it, and 10 s in all."""

    ROWS = (
        served(CHAT, 0.0, 2.0, 7.0, outputs=11),  # every limit is met exactly
        served(CHAT, 1.0, 2.5, 7.4, outputs=11),
        served(CHAT, 2.0, 1.0, 10.0, outputs=11),
        served(CHAT, 3.0, 1.0, 10.5, outputs=1),  # one token has no time per token
        not_served(CHAT, 4.0),
        not_served(CHAT, 5.0, Outcome.FAILED),
        (CHAT, 6.0, 1.0, None, 600, 11, Outcome.IN_FLIGHT, 0),  # the first token came in time, the last never
        served(LONG, 7.0, 9.0, 99.0),
    )

    @pytest.mark.parametrize(
        ("measure", "limit_s", "requests_", "over"),
        [("ttft_s", 2.0, 7, 4), ("tpot_s", 0.5, 6, 4), ("e2e_s", 10.0, 7, 4), ("e2e_s", 10.5, 7, 3)],
    )
    def test_by_hand(self, measure, limit_s, requests_, over):
        """Not served is late by every limit; a lone token counts for TTFT and E2E only; the other type is no matter."""
        count = count_slo(requests(*self.ROWS), CHAT, slo(measure, 0.95, limit_s))
        assert (count.requests, count.over) == (requests_, over)
        assert count.share == over / requests_

    def test_the_guard_takes_the_limit_for_smaller(self):
        table = requests(*self.ROWS)
        assert count_slo(table, CHAT, slo("ttft_s"), guard=0.99).over == 5
        assert count_slo(table, CHAT, slo("ttft_s"), guard=0.5).over == 5
        assert count_slo(table, CHAT, slo("ttft_s"), guard=0.49).over == 7

    def test_types_sum_to_the_whole(self):
        table = requests(*self.ROWS)
        applies, over = beyond(table, slo("tpot_s", 0.95, 0.5))
        counts = [count_slo(table, kind, slo("tpot_s", 0.95, 0.5)) for kind in (CHAT, LONG)]
        assert sum(count.requests for count in counts) == applies.sum() == 7
        assert sum(count.over for count in counts) == over.sum()
        assert not (over & ~applies).any()

    @pytest.mark.parametrize(
        ("level", "late", "held", "slo_ratio"),
        [(0.95, 1, True, 1.0), (0.95, 2, False, 2.0), (0.9, 2, True, 1.0), (0.95, 0, True, 0.0), (0.5, 11, False, 1.1)],
    )
    def test_a_share_that_just_may_be_late_holds(self, level, late, held, slo_ratio):
        """Twenty requests; the last ones take 3 s to their first token."""
        table = requests(*(served(CHAT, float(n), 3.0 if n >= 20 - late else 1.0, 9.0) for n in range(20)))
        count = count_slo(table, CHAT, slo(level=level))
        assert count.held is held
        assert count.slo_ratio == pytest.approx(slo_ratio)
        assert (count.slo_ratio <= 1) is held, "to the bit: acceptance asks for the one, the loop for the other"

    def test_no_requests_hold(self):
        count = count_slo(requests(served(LONG, 0.0, 9.0, 99.0)), CHAT, slo())
        assert (count.requests, count.share, count.held) == (0, 0.0, True)


@given(
    times=st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    level=st.sampled_from([0.5, 0.9, 0.95]),
    limit_s=st.floats(0.01, 10),
)
def test_it_holds_where_the_order_statistic_is_within_the_limit(times, level, limit_s):
    """Of n requests the floor of n (1 - level) latest may be late: the next one decides."""
    table = requests(*(served(CHAT, float(n), t, t + 1) for n, t in enumerate(times)))
    spare = int(np.floor(len(times) * (1 - level) + 1e-9))
    deciding_s = np.sort(table.ttft_s)[::-1][spare]
    assert count_slo(table, CHAT, slo(level=level, limit_s=limit_s)).held is bool(deciding_s <= limit_s)
