"""The loop of verified plans on a small catalogue: what it returns, what it tries it on, and how it ends without."""

from collections import Counter

import numpy as np
import pytest

from experiments.replay.run import survey
from experiments.report.verified import verdict_words
from experiments.verify import loop
from experiments.verify.acceptance import FAILURES, draws_wanted, share_of
from experiments.verify.alternatives import LITTLE
from experiments.verify.draws import ScenarioDraws, TraceDraws
from experiments.verify.guess import Guess
from experiments.verify.loop import CHEAPER, verify
from experiments.verify.moves import even_routing, larger_fleets
from experiments.verify.search import SEARCH_DRAWS, VerifyOptions
from experiments.verify.trial import Bench
from experiments.verify.verdict import verdict_of
from policies.checking.plan import check
from policies.registry import make_policy
from simulator.errors import InfeasibleError, InputError
from simulator.planning.plan import plan_arrays
from tests.verify_samples import small, trace_of
from traces.source import TraceInMemory

BUSY = ("arrival_per_h = 7200", "arrival_per_h = 72000")
MODELS = ('models = ["llama-3.1-8b"]', 'models = ["llama-3.1-8b", "llama-3.2-3b"]')
TIGHT = (("tpot_slo_s = 0.05", "tpot_slo_s = 0.02"), ("ttft_slo_s = 1.0", "ttft_slo_s = 0.3"))
DRAWS = 8


class Watched:
    """Draws that count which of them were made."""

    def __init__(self, draws):
        self._draws = draws
        self.learning, self.learning_source, self.held_out = draws.learning, draws.learning_source, draws.held_out
        self.arriving = draws.arriving
        self.numbers = []

    def fresh(self, number):
        self.numbers.append(number)
        return self._draws.fresh(number)


def options(**changes):
    return VerifyOptions(**({"draws": DRAWS, "effort": 8} | changes))


def search(scenario, draws=None, **changes):
    chosen = options(**changes)
    watched = Watched(ScenarioDraws(scenario, seed=chosen.seed) if draws is None else draws)
    return verify(scenario, watched, make_policy("agh+"), chosen), watched


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return small(tmp_path_factory.mktemp("busy"), BUSY, MODELS, *TIGHT)


def bursts(count=40, each=60, over_s=2.0, span_s=1200.0):
    """Bursts of a minute's worth of requests within two seconds."""
    draw = np.random.default_rng(0)
    at_s = np.sort(
        np.round((draw.uniform(0, span_s, count)[:, None] + draw.uniform(0, over_s, (count, each))).ravel(), 6)
    )
    long = draw.random(len(at_s)) < 0.3
    return TraceInMemory(trace_of(at_s, np.where(long, 2500, 600), np.where(long, 60, 120)))


def draws_of(scenario, source):
    return TraceDraws(scenario, survey(scenario, source), hold_out=0.2, seed=0)


@pytest.fixture(scope="module")
def bursty(tmp_path_factory):
    """A scenario whose arrivals come in bursts, the draws, and what was found."""
    scenario = small(tmp_path_factory.mktemp("bursty"))
    draws = draws_of(scenario, bursts())
    return scenario, *search(scenario, draws)


@pytest.fixture(scope="module", params=["poisson", "bursts", "luck"])
def any_search(request, scenario, tmp_path_factory):
    """Both kinds of arrivals, and one where the first plan passes some draws and not all: scenario, search, draws."""
    if request.param == "bursts":
        return request.getfixturevalue("bursty")
    if request.param == "luck":
        scenario = small(tmp_path_factory.mktemp("luck"), BUSY)
    return scenario, *search(scenario, guess=Guess.NONE)


class TestTheBest:
    def test_it_is_the_cheapest_that_was_accepted_and_not_the_last(self, any_search):
        _, found, _ = any_search
        accepted = [item for item in found.tried if item.accepted]
        assert found.best in accepted
        assert found.best.trial.cost_usd_per_h == min(item.trial.cost_usd_per_h for item in accepted)
        some = len(found.tried) > len(accepted) or any(item.acceptance.failures for item in accepted)
        assert some, "none was refused, and none failed a draw"

    def test_its_plan_keeps_its_problem(self, any_search):
        _, found, _ = any_search
        candidate = found.best.candidate
        report = check(candidate.problem, candidate.plan)
        assert report.accepted, report.violations
        assert candidate.problem.cap.max() <= 1

    def test_it_passed_all_that_was_asked(self, any_search):
        _, found, draws = any_search
        for item in found.tried:
            passed = item.acceptance
            if not item.accepted:
                assert item.failed is not None
                assert item.failed.slo_ratio > 1 or passed is None
                if passed is not None and passed.search:
                    *before, last = *passed.search, *passed.fresh
                    assert last == item.failed.slo_ratio > 1
                    assert sum(slo_ratio > 1 for slo_ratio in before) == (FAILURES if passed.fresh else 0)
                continue
            assert item.trial.holds
            assert (passed.held_out is None) is (draws.held_out is None)
            assert len(passed.search) == SEARCH_DRAWS
            assert len(passed.fresh) == draws_wanted(DRAWS, passed.number, passed.failures)
            assert max((passed.held_out or 0.0, *passed.search)) <= 1
            assert passed.held_share == share_of(len(passed.fresh), passed.number, passed.failures)

    def test_it_does_the_same_again_by_the_stricter_limits(self, any_search):
        """Simulated anew on the part held out and on the first draws, at the guard."""
        scenario, found, draws = any_search
        bench = Bench(scenario, found.slos, options().guard)
        plan, acceptance = found.best.candidate.plan, found.best.acceptance
        if draws.held_out is not None:
            assert bench.trial(plan, draws.held_out).slo_ratio == acceptance.held_out
        again = {bench.trial(plan, draws.fresh(number)).slo_ratio for number in range(SEARCH_DRAWS)}
        assert again == set(acceptance.search)
        loose = bench.trial(plan, draws.learning, guard=1.0)
        assert loose.slo_ratio <= bench.trial(plan, draws.learning).slo_ratio

    def test_plans_that_cannot_become_the_best_are_not_held_against_draws(self, any_search):
        """Nor are those that break a limit where they were learned: simulations are for what may become the best."""
        _, found, _ = any_search
        best_usd = np.inf
        for item in found.tried:
            if item.acceptance is not None:
                assert item.trial.holds
                assert item.trial.cost_usd_per_h < CHEAPER * best_usd
            if item.accepted:
                best_usd = item.trial.cost_usd_per_h

    def test_no_plan_is_tried_twice(self, any_search):
        _, found, _ = any_search
        told = {
            (
                frozenset(plan.replicas_by_key().items()),
                tuple((r.query_type, r.tier, round(r.share, 6)) for r in plan.routing),
            )
            for plan in (item.candidate.plan for item in found.tried)
        }
        assert len(told) == len(found.tried)


def test_the_guard_is_kept_in_the_search(scenario):
    """A plan for half of each limit holds by it, where that for 0.98 does not; and it costs more."""
    strict, loose = (search(scenario, guard=guard) for guard in (0.5, 0.98))
    (found, draws), (other, _) = strict, loose
    trials = [
        Bench(scenario, found.slos, 1.0).trial(s.best.candidate.plan, draws.learning, guard=0.5) for s in (found, other)
    ]
    assert [trial.holds for trial in trials] == [True, False]
    assert found.best.trial.slo_ratio == trials[0].slo_ratio
    assert found.best.trial.cost_usd_per_h > other.best.trial.cost_usd_per_h


def test_a_dearer_plan_that_holds_is_not_worth_its_draws(scenario):
    watched = Watched(ScenarioDraws(scenario, seed=0))
    running = loop.Loop(scenario, watched, make_policy("agh+"), options(effort=1), lambda _: None)
    best = running.run().best
    made = len(watched.numbers)
    problem, plan = best.candidate.problem, best.candidate.plan
    larger = next(larger_fleets(problem, plan, []))
    tried = running.attempt("larger", even_routing(problem, larger, policy="test"))
    assert tried.trial.holds
    assert tried.acceptance is None
    assert len(watched.numbers) == made
    assert running.search.best is best


class TestDraws:
    def test_no_fresh_draw_is_used_twice(self, any_search):
        """Those of the search are kept; each acceptance that comes to fresh ones begins where the last one ended."""
        _, found, draws = any_search
        made = Counter(draws.numbers)
        fresh = [
            number for number in draws.numbers[: draws.numbers.index(max(draws.numbers)) + 1] if number >= SEARCH_DRAWS
        ]
        assert fresh == list(range(SEARCH_DRAWS, SEARCH_DRAWS + len(fresh)))
        assert found.fresh_used == sum(len(item.acceptance.fresh) for item in found.tried if item.acceptance)
        assert found.unseen == SEARCH_DRAWS + found.fresh_used == max(made) + 1

    def test_every_simulation_is_counted(self, scenario):
        found, draws = search(scenario)
        trials = len(found.tried) + sum(
            len(item.acceptance.search) + len(item.acceptance.fresh) for item in found.tried if item.acceptance
        )
        assert found.bench.simulations == trials
        assert len([n for n in draws.numbers if n < SEARCH_DRAWS]) <= SEARCH_DRAWS


def story(found):
    return [
        (item.step, item.trial.cost_usd_per_h, item.trial.slo_ratio, item.accepted, item.candidate.plan.routing)
        for item in found.tried
    ]


def test_one_seed_one_result(scenario):
    first, again, other = (search(scenario, seed=seed)[0] for seed in (5, 5, 6))
    assert story(first) == story(again)
    assert (first.learned == again.learned).all()
    assert story(first) != story(other)


@pytest.mark.parametrize("guess", [Guess.NONE, Guess.STAFFING, Guess.SEQUENCE])
def test_every_guess_comes_to_a_plan(scenario, guess):
    found, _ = search(scenario, guess=guess)
    assert found.guess is guess
    assert found.best is not None
    assert (found.guessed > 0).all()
    assert (found.guessed <= 1).all()
    assert (found.guessed == 1).all() == (guess is Guess.NONE)


def test_auto_takes_the_guess_for_the_arrivals(scenario, bursty):
    assert search(scenario, effort=1)[0].guess is Guess.STAFFING
    assert bursty[1].guess is Guess.SEQUENCE


def test_replicas_are_added_where_learning_does_not_come_to_an_end(bursty, monkeypatch):
    """After a single round from no headroom at all: one replica more at a time until a plan is accepted."""
    monkeypatch.setattr(loop, "ROUNDS", 1)
    scenario = bursty[0]
    found, _ = search(scenario, draws_of(scenario, bursts()), guess=Guess.NONE)
    steps = [item.step for item in found.tried]
    assert steps[:2] == ["round 1", "one more"]
    assert found.best is not None
    grown = [item for item in found.tried if item.step in ("round 1", "one more")]
    sizes = [sum(item.candidate.plan.replicas_by_key().values()) for item in grown]
    assert sizes == list(range(sizes[0], sizes[0] + len(sizes)))
    assert grown[-1].accepted


def test_effort_bounds_the_cheaper_fleets(bursty):
    scenario = bursty[0]
    for effort in (1, 3):
        found, _ = search(scenario, draws_of(scenario, bursts()), effort=effort)
        assert 0 < sum(item.step in ("less headroom", "smaller") for item in found.tried) <= effort


class TestNothing:
    """Budgets that rent too little."""

    def test_a_budget_that_is_too_small(self, tmp_path):
        scenario = small(tmp_path, BUSY, ("budget_usd_per_h = 30.0", "budget_usd_per_h = 0.9"))
        found, draws = search(scenario)
        assert found.best is None
        assert not any(item.accepted for item in found.tried)
        verdict = verdict_of(scenario, draws, found, options())
        assert verdict.failure.startswith(f"no plan was accepted, of {len(found.tried)}; the closest, ")
        assert "may be)" in verdict.failure
        assert (verdict.cost_usd_per_h, verdict.held_share, verdict.slos) == (None, None, [])

    @pytest.mark.parametrize("guess", [Guess.NONE, Guess.STAFFING, Guess.SEQUENCE])
    def test_headroom_that_the_budget_does_not_allow_is_no_conflict(self, tmp_path, guess):
        """All has to be served: the plan without headroom exists, and is told to be the closest."""
        all_served = ("error_slo = 1.0", "error_slo = 1.0\nunmet_cap = 0.0")
        scenario = small(tmp_path, BUSY, all_served, ("budget_usd_per_h = 30.0", "budget_usd_per_h = 2.2"))
        found, draws = search(scenario, guess=guess)
        assert found.tried
        if found.best is None:
            assert "no plan was accepted" in verdict_of(scenario, draws, found, options()).failure

    def test_limits_that_conflict_without_any_headroom_are_told(self, tmp_path):
        all_served = ("error_slo = 1.0", "error_slo = 1.0\nunmet_cap = 0.0")
        scenario = small(tmp_path, BUSY, all_served, ("budget_usd_per_h = 30.0", "budget_usd_per_h = 0.9"))
        with pytest.raises(InfeasibleError, match=r"the budget of 0\.9 USD per 1 h"):
            search(scenario)

    def test_below_the_floor_nothing_is_tried(self, tmp_path):
        scenario = small(tmp_path, ("ttft_slo_s = 1.0", "ttft_slo_s = 0.016"))
        with pytest.raises(
            InputError, match=r"query type 'chat': p95 TTFT of 0\.016 s .* cannot be met by any hardware"
        ):
            search(scenario)


class TestVerdict:
    def test_other_ways_are_priced_where_little_of_the_limit_is_used(self, bursty):
        scenario, found, draws = bursty
        verdict = verdict_of(scenario, draws, found, options())
        name, load = verdict.emptiest
        assert 0 < load < LITTLE
        assert name.split()[2] in {d.configuration.tier for d in found.best.candidate.plan.deployments}
        ways = [other.way for other in verdict.alternatives]
        for part in ("plan again every 5 min", "plan again every 1 min", "refuse ", "promise "):
            assert any(part in way for way in ways), part
        assert all(other.cost_usd_per_h > 0 for other in verdict.alternatives)
        promised = [o.cost_usd_per_h for o in verdict.alternatives if "promise" in o.way]
        assert promised == sorted(promised, reverse=True), "promising less costs less"
        assert any("static headroom is the wrong tool" in line for line in verdict_words(verdict))

    def test_where_replicas_are_well_filled_there_is_nothing_to_say(self, scenario):
        found, draws = search(scenario, guess=Guess.STAFFING)
        verdict = verdict_of(scenario, draws, found, options())
        assert verdict.emptiest is None
        assert list(verdict.alternatives) == []

    def test_its_rows_are_those_of_the_trials(self, bursty):
        scenario, found, draws = bursty
        verdict = verdict_of(scenario, draws, found, options())
        assert len(verdict.slos) == sum(map(len, found.slos)) == 6
        for place, row in enumerate(verdict.slos):
            fresh = np.array([late[place] for late in found.best.acceptance.fresh_late])
            assert row.learned_from == found.best.trial.late[place] <= row.may_be_late + 1e-9
            assert (row.fresh_mean, row.fresh_worst) == (pytest.approx(fresh.mean()), pytest.approx(fresh.max()))
            assert 0 <= row.fresh_low <= row.fresh_mean <= row.fresh_high
            assert row.fresh_worst <= row.may_be_late + 1e-9
            assert row.held_out is not None
        assert verdict.cost_usd_per_h == found.best.trial.cost_usd_per_h
        assert verdict.held_share == found.best.acceptance.held_share >= share_of(DRAWS)
        assert sum(row.requests for row in verdict.agreement) == int(found.best.trial.run.requests.served.sum())


def test_a_type_without_requests_is_served_and_not_judged(tmp_path):
    scenario = small(tmp_path)
    trace = trace_of(np.arange(0, 600, 0.5), 600, 120)
    found, _ = search(scenario, draws_of(scenario, TraceInMemory(trace)))
    assert found.best is not None
    assert found.slos[1] == ()
    plan = found.best.candidate.plan
    assert {route.query_type for route in plan.routing} == {"chat", "long"}
    assert plan_arrays(found.best.candidate.problem, plan).unmet == pytest.approx(0)
