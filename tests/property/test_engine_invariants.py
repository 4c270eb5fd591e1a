"""What holds in every run: random fleets that are re-planned, cut short and broken, in both disciplines."""

from dataclasses import dataclass

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from simulator.engine import Observation
from simulator.fleet.balancer import BALANCERS
from simulator.fleet.reality import OnFailure, Reality
from simulator.planning.plan import Plan
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.rng import draw_key, draws
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import COLUMNS, LONG, Bench, batching, fits, offer, plan, rentals, run, static, ticks
from tests.exploring import examples

TYPES = ("p", "q")
SUMS = tuple(name for name in Observation.__slots__ if name != "now_s")
TIERS = ("a", "b", "c")
COEFFICIENTS = st.integers(0, 2)
SPECS = st.builds(
    batching,
    kv=st.integers(0, 40),
    budget=st.integers(1, 64),
    base=st.integers(0, 8),
    prefill=COEFFICIENTS,
    decode=COEFFICIENTS,
    context=COEFFICIENTS,
) | st.builds(
    static, kv=st.integers(0, 60), slots=st.none() | st.integers(1, 4), prefill=COEFFICIENTS, decode=COEFFICIENTS
)

OFFERS = st.builds(offer, SPECS, startup=st.sampled_from([0, 15, 40, 90]))


@st.composite
def workloads(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.integers(0, 40))
    arrivals = np.cumsum(rng.choice([0, 0, 1, 4, 9, 30], size))
    columns = arrivals, rng.integers(0, 20, size), rng.choice([0, 1, 2, 5, 12], size), rng.integers(0, 2, size)
    return list(zip(*(c.tolist() for c in columns), strict=True))


@st.composite
def plans(draw) -> Plan:
    """Deployments come and go; a share of each type may be left unmet, all of it if nothing is deployed."""
    replicas = {tier: n for tier in TIERS if (n := draw(st.integers(0, 3)))}
    shares, unmet = {}, {}
    for name in TYPES:
        weights = [draw(st.integers(0, 3)) for _ in replicas]
        left = draw(st.sampled_from([0, 0, 1, 3]))
        total = sum(weights) + left
        if sum(weights):
            shares[name] = {tier: w / total for tier, w in zip(replicas, weights, strict=True)}
        if not sum(weights) or left:
            unmet[name] = left / total if sum(weights) else 1.0
    return plan(replicas, shares, unmet)


@dataclass(frozen=True)
class Scenario:
    """Everything that a run depends on."""

    arguments: dict

    def bench(self) -> Bench:
        return Bench(**self.arguments)


@st.composite
def scenarios(draw, failures=(0.0, 1 / 300, 1 / 60), grace=(0, 50, LONG)) -> Scenario:
    rows = draw(workloads())
    rate = draw(st.sampled_from(failures)) * 3600 * TICKS_PER_S
    return Scenario(
        {
            "rows": rows,
            "types": TYPES,
            "plans": draw(st.lists(plans(), min_size=1, max_size=5)),
            "offers": {tier: draw(OFFERS) for tier in TIERS},
            "interval": draw(st.integers(5, 80)),
            "horizon": max((row[0] for row in rows), default=0) + draw(st.integers(1, 200)),
            "grace": draw(st.sampled_from(grace)),
            "balancer": draw(st.sampled_from(sorted(BALANCERS))),
            "seed": draw(st.integers(0, 10**6)),
            "reality": Reality(failures_per_replica_h=rate, on_failure=draw(st.sampled_from(OnFailure))),
        }
    )


MANY = settings(deadline=None, max_examples=examples(80))
SOME = settings(deadline=None, max_examples=examples(40))


@MANY
@given(scenarios())
def test_requests_are_conserved_and_time_runs_forward(scenario):
    bench = scenario.bench()
    result = bench.run()
    table = result.requests
    end = ticks(result.end_s)
    assert sum(result.count(outcome) for outcome in Outcome) == len(table) == len(bench.rows)
    served = table.outcome == Outcome.SERVED
    happened = [table.arrival_tick]
    for column in (table.start_tick, table.first_token_tick, table.finish_tick):
        earlier = np.max(happened, axis=0)
        assert ((column == NEVER) | ((earlier <= column) & (column <= end))).all()
        happened.append(column)
    assert ((table.finish_tick != NEVER) == served).all()
    assert (table.start_tick[served] != NEVER).all()
    assert ((table.first_token_tick != NEVER)[served] == (table.output_tokens > 0)[served]).all()
    assert (table.first_token_tick[table.output_tokens == 0] == NEVER).all()
    assert (table.first_token_tick[table.start_tick == NEVER] == NEVER).all()
    for outcome in Outcome:
        event(f"some {outcome.name}: {result.count(outcome) > 0}")


@MANY
@given(scenarios())
def test_replicas_keep_their_limits_and_end_after_they_start(scenario):
    bench = scenario.bench()
    result = bench.run()
    table = result.requests
    routed = table.replica >= 0
    of_replica = np.array([rental.deployment for rental in result.rentals] or [0])
    assert (table.deployment[routed] == of_replica[table.replica[routed]]).all()
    for rental in result.rentals:
        assert rental.rent_s <= rental.end_s <= result.end_s
        assert rental.rent_s <= rental.ready_s
        assert 0 <= rental.kv_peak_tokens <= rental.kv_capacity_tokens
        served = (table.replica == rental.replica) & table.served
        assert ((table.finish_s[served] >= rental.ready_s) & (table.finish_s[served] <= rental.end_s)).all()
    assert sum(r.preemptions for r in result.rentals) == table.preemptions.sum()
    for replica in bench.subject.fleet.replicas:  # nothing is left where everything has left
        if replica.service.held == 0:
            assert (replica.service.outstanding_tokens, replica.service.next_tick) == (0, None)
    assert sum(replica.service.held for replica in bench.subject.fleet.replicas) == result.count(Outcome.IN_FLIGHT)
    assert (table.outcome[table.replica < 0] != Outcome.SERVED).all()
    for row, outcome, deployment in zip(bench.rows, table.outcome, table.deployment, strict=True):
        if outcome in (Outcome.SERVED, Outcome.REJECTED_TOO_LARGE):
            spec = bench.offers[table.deployments[deployment].tier].spec
            assert fits(row[:3], spec) == (outcome == Outcome.SERVED)


@MANY
@given(scenarios())
def test_observations_are_what_had_happened_and_no_more(scenario):
    bench = scenario.bench()
    table = bench.run().requests
    h, f = table.input_tokens, table.output_tokens

    def sums(chosen, *columns):
        """Sums over the chosen requests of each type."""
        of_type = [chosen & (table.query_type == kind) for kind in range(len(TYPES))]
        return [[int(column[rows].sum()) for rows in of_type] for column in columns]

    for number, seen in enumerate(bench.script.seen):
        now, before = number * bench.interval, (number - 1) * bench.interval
        assert ticks(seen.now_s) == now < bench.horizon
        # Control precedes the arrivals and boundaries of its tick.
        arrived = (before <= table.arrival_tick) & (table.arrival_tick < now)
        finished = table.served & (before <= table.finish_tick) & (table.finish_tick < now)
        assert [getattr(seen, name).tolist() for name in SUMS] == [
            *sums(arrived, np.ones_like(h), h),
            *sums(finished, np.ones_like(h), f, h * f, f * f),
        ]
    assert len(bench.script.seen) == -(-bench.horizon // bench.interval)


@SOME
@given(scenarios(grace=(0,)), st.integers(50, 200))
def test_observations_together_are_the_whole_run(scenario, interval):
    """Where all is over long before the horizon, every request and every answer is in one of them."""
    last = max((row[0] for row in scenario.arguments["rows"]), default=0)
    bench = Bench(**scenario.arguments | {"interval": interval, "horizon": last + 5000})
    table = bench.run().requests
    h, f = table.input_tokens, table.output_tokens
    totals = [sum(getattr(seen, name).sum() for seen in bench.script.seen) for name in SUMS]
    served = [column[table.served].sum() for column in (f, h * f, f * f)]
    assert totals == [len(table), h.sum(), table.served.sum(), *served]


@SOME
@given(scenarios())
def test_two_runs_are_identical(scenario):
    first, second = scenario.bench().run(), scenario.bench().run()
    for name in COLUMNS:
        assert np.array_equal(getattr(first.requests, name), getattr(second.requests, name)), name
    assert first.rentals == second.rentals
    assert (first.events, first.end_s) == (second.events, second.end_s)
    assert [moment for moment, _ in first.plans] == [moment for moment, _ in second.plans]


@SOME
@given(scenarios(failures=(0.0,), grace=(LONG,)))
def test_a_fleet_that_does_not_fail_serves_whatever_its_plans_accept(scenario):
    bench = scenario.bench()
    result = bench.run()
    assert result.count(Outcome.FAILED) == result.count(Outcome.IN_FLIGHT) == 0
    uniform = draws(draw_key(bench.seed, "router"), 0, len(bench.rows))
    unmet = [dict(p.unmet) for _, p in result.plans]
    for row, draw, outcome in zip(bench.rows, uniform, result.requests.outcome, strict=True):
        shares = [plan_unmet.get(TYPES[row[3]], 0.0) for plan_unmet in unmet]
        if draw < 1 - max(shares) - 1e-9:
            assert outcome != Outcome.REJECTED_UNMET
        elif draw > 1 - min(shares) + 1e-9:
            assert outcome == Outcome.REJECTED_UNMET


@SOME
@given(workloads(), st.integers(1, 9), st.integers(20, 60), st.integers(1, 3))
def test_each_step_gives_one_token_to_each_sequence(rows, base, kv, replicas):
    """With steps of one length, the time between the first and the last token counts the tokens."""
    table = run([row[:3] for row in rows], [plan({"a": replicas})], batching(kv, budget=64, base=base)).requests
    two_or_more = table.served & (table.output_tokens > 1)
    decode = (table.finish_tick - table.first_token_tick)[two_or_more]
    least = ((table.output_tokens - 1) * base)[two_or_more]
    preempted = table.preemptions[two_or_more] > 0
    assert (decode[~preempted] == least[~preempted]).all()
    assert (decode[preempted] > least[preempted]).all()


def paid_by_hand(plan_list, offers, interval, horizon):
    """Rentals of a fleet without requests: (tier, first, last paid tick), sorted."""
    wanted = [{d.configuration.tier: d.replicas for d in p.deployments} for p in plan_list]
    rented = {tier: [(-offers[tier].startup_ticks, 0)] * wanted[0].get(tier, 0) for tier in TIERS}
    paid = []

    def give_back(tier, surplus, now):
        paid.extend((tier, rented[tier].pop()[0], now) for _ in range(surplus))  # the newest first

    for number, target in enumerate(wanted[1:], start=1):
        now = number * interval
        if now >= horizon:
            break
        for tier, replicas in rented.items():
            missing = target.get(tier, 0) - len(replicas)
            replicas += [(now, now + offers[tier].startup_ticks)] * missing
            give_back(tier, min(-missing, sum(ready > now for _, ready in replicas)), now)
        switch = max([now, *(ready for replicas in rented.values() for _, ready in replicas)])
        if switch < horizon and (number + 1 == len(wanted) or switch <= now + interval):
            for tier, replicas in rented.items():
                give_back(tier, len(replicas) - target.get(tier, 0), switch)
    for tier, replicas in rented.items():
        give_back(tier, len(replicas), horizon)
    return sorted(paid)


@MANY
@given(
    st.lists(plans(), min_size=1, max_size=6),
    st.fixed_dictionaries(dict.fromkeys(TIERS, OFFERS)),
    st.integers(5, 80),
    st.integers(1, 400),
)
def test_an_idle_fleet_is_paid_as_by_hand(plan_list, offers, interval, horizon):
    result = run([], plan_list, offers, types=TYPES, interval=interval, horizon=horizon)
    paid = sorted((result.requests.deployments[d].tier, first, last) for d, first, last in rentals(result))
    assert paid == paid_by_hand(plan_list, offers, interval, horizon)
