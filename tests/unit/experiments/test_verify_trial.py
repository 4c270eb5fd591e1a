"""What a trial tells: its SLO ratio, and which SLOs have requests enough."""

from experiments.scenario.slo import PercentileSlo, SloCount
from experiments.verify.trial import Trial


def trial(*counts):
    slos = [PercentileSlo(measure="ttft_s", level=level, limit_s=1.0) for level, _, _ in counts]
    return Trial(
        draw="by hand",
        counts=tuple(
            (i, SloCount(slo=slo, requests=requests, over=over))
            for i, (slo, (_, requests, over)) in enumerate(zip(slos, counts, strict=True))
        ),
        cost_usd_per_h=1.0,
        run=None,  # type: ignore[arg-type]
    )


def test_the_slo_ratio_is_that_of_the_slo_with_most_late_of_those_that_may_be():
    found = trial((0.95, 100, 4), (0.5, 100, 45), (0.99, 1000, 2))
    assert found.slo_ratio == 0.9
    assert found.worst is not None
    assert found.worst[0] == 1
    assert found.holds


def test_few_requests_tell_nothing():
    """From 59 requests on p95 can be told from luck, from 299 on p99."""
    assert trial((0.95, 58, 10), (0.99, 298, 30)).that_tell.holds
    assert not trial((0.95, 58, 10), (0.99, 298, 30)).holds
    assert not trial((0.95, 59, 10)).that_tell.holds
    assert not trial((0.99, 299, 30)).that_tell.holds
    assert trial((0.95, 10, 9)).that_tell.slo_ratio == 0.0
