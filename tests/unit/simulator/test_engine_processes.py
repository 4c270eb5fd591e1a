"""Processes of the user beside the fleet: they wait, look, re-plan and let replicas fail, in both engines alike."""

import pytest

from simulator.engine import ENGINES
from simulator.fleet.reality import OnFailure, Reality
from simulator.fleet.replicas import ReplicaState
from simulator.replica.outcome import Outcome
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import Bench, agreed, batching, column, offer, outcomes, plan, rentals, static

A, TWO = plan({"a": 1}), plan({"a": 2})
each_engine = pytest.mark.parametrize("engine", ENGINES)


def test_process_waits_in_ticks_and_in_seconds():
    def process(engine, notes):
        notes.append((engine.env.now, engine.now_s))
        yield engine.env.timeout(7)
        notes.append(engine.env.now)
        yield engine.timeout_s(3 / TICKS_PER_S)
        notes.append((engine.env.now, engine.now_s * TICKS_PER_S))

    assert agreed([], [A], static(), horizon=50, processes=[process]).notes == [(0, 0.0), 7, (10, 10.0)]


def test_process_sees_queues_at_odd_times():
    def process(engine, notes):
        while True:
            yield engine.env.timeout(7)
            replica = engine.fleet.replicas[0]
            notes.append((engine.env.now, replica.service.held, replica.service.outstanding_tokens))

    rows = [(0, 1, 3), (7, 2, 1), (12, 3, 0), (21, 0, 1)]
    story = agreed(rows, [A], batching(), processes=[process])
    # The first needs 30 ticks; the second and the third start at 10 and 20 and take 10. Arrivals come after processes.
    assert story.notes == [(7, 1, 4), (14, 3, 10), (21, 2, 7), (28, 3, 8), (35, 1, 1)]
    assert story.requests.finish_tick.tolist() == [30, 20, 30, 40]


def test_process_replans_out_of_turn():
    def process(engine, notes):
        yield engine.env.timeout(30)
        engine.replan()
        notes.append([replica.state for replica in engine.fleet.replicas])
        yield engine.env.timeout(20)
        notes.append([replica.state for replica in engine.fleet.replicas])

    rows = [(10, 2, 3), (40, 0, 99), (50, 0, 1)]
    story = agreed(rows, [A, TWO], offer(static(), startup=20), interval=100, horizon=200, processes=[process])
    assert story.notes == [[ReplicaState.READY, ReplicaState.LOADING], [ReplicaState.READY] * 2]
    assert [seen.now_s * TICKS_PER_S for seen in story.seen] == [0, 30, 100]
    assert [seen.arrived.tolist() for seen in story.seen] == [[0], [1], [2]]
    assert [moment * TICKS_PER_S for moment, _ in story.summary.plans] == [0, 30]
    assert column(story.result, "replica") == [0, 0, 1]
    assert rentals(story.result) == [(0, -20, 200), (0, 30, 200)]


@pytest.mark.parametrize("on_failure", OnFailure)
def test_process_lets_a_replica_fail(on_failure):
    def process(engine, notes):
        yield engine.env.timeout(25)
        engine.fail(engine.fleet.replicas[0])
        notes.append([(r.state, r.service.held, r.service.outstanding_tokens) for r in engine.fleet.replicas])

    rows = [(0, 0, 40), (0, 0, 60), (30, 0, 5)]
    story = agreed(
        rows,
        [TWO],
        offer(static(), startup=1000),
        horizon=100,
        processes=[process],
        reality=Reality(on_failure=on_failure),
    )
    again = on_failure is OnFailure.REQUEUE
    assert story.notes == [
        [
            (ReplicaState.ENDED, 0, 0),
            (ReplicaState.READY, 1 + again, 60 + 40 * again),
            (ReplicaState.LOADING, 0, 0),
        ]
    ]
    assert outcomes(story.result) == [Outcome.SERVED if again else Outcome.FAILED, Outcome.SERVED, Outcome.SERVED]
    assert rentals(story.result)[0] == (0, -1000, 25)


def test_replica_that_does_not_serve_cannot_fail():
    def process(engine, notes):
        yield engine.env.timeout(25)
        for _ in range(3):
            for replica in list(engine.fleet.replicas):
                engine.fail(replica)
        notes.append([replica.state for replica in engine.fleet.replicas])

    story = agreed([], [A], offer(static(), startup=1000), horizon=100, processes=[process])
    assert story.notes == [[ReplicaState.ENDED, ReplicaState.LOADING]]


def test_process_that_waits_for_nothing_runs_at_each_of_its_turns():
    """Two at one tick go in the order in which they were given."""

    def first(engine, notes):
        for _ in range(3):
            yield engine.env.timeout(0)
            notes.append(("first", engine.env.now))

    def second(engine, notes):
        yield engine.env.timeout(0)
        notes.append(("second", engine.env.now))

    story = agreed([(0, 0, 1)], [A], static(), processes=[first, second])
    assert story.notes == [("first", 0), ("second", 0), ("first", 0), ("first", 0)]


def test_a_wait_for_part_of_a_tick_is_rounded_up():
    """There is no time between two ticks."""

    def process(engine, notes):
        for delay in (9.5, 1.0, 9.25, 0.5):
            yield engine.env.timeout(delay)
            service = engine.fleet.replicas[0].service
            notes.append((engine.env.now, service.held, service.steps))

    story = agreed([(0, 0, 5), (10, 0, 3)], [A], batching(), processes=[process])
    assert story.notes == [(10, 1, 0), (11, 2, 1), (21, 2, 2), (22, 2, 2)]


def test_process_may_replan_and_let_replicas_fail_between_two_ticks():
    def process(engine, notes):
        yield engine.env.timeout(12.5)
        engine.replan()
        yield engine.env.timeout(2.75)
        engine.fail(engine.fleet.replicas[0])

    story = agreed([(0, 1, 20), (14, 1, 3)], [A, TWO], offer(batching(), 20), horizon=200, processes=[process])
    assert outcomes(story.result) == [Outcome.SERVED] * 2
    assert len(story.summary.rentals) == 3


@each_engine
def test_what_fails_in_a_process_comes_through(engine):
    def process(subject, notes):
        yield subject.env.timeout(5)
        raise KeyError("a mistake of the user")

    bench = Bench([(0, 0, 9)], [A], static(), processes=[process], engine=engine)
    with pytest.raises(KeyError, match="a mistake of the user"):
        bench.run()


def test_process_that_goes_on_for_ever_does_not_keep_the_run_alive():
    def process(engine, notes):
        while True:
            yield engine.env.timeout(1)

    assert agreed([(0, 0, 30)], [A], static(), processes=[process]).summary.end_s * TICKS_PER_S == 30


def test_counters_of_a_replica_are_those_of_the_moment():
    """In the middle of a long row of equal steps too."""

    def process(engine, notes):
        for _ in range(5):
            yield engine.env.timeout(15)
            service = engine.fleet.replicas[0].service
            notes.append((service.steps, service.kv_peak_tokens, service.preemptions))

    story = agreed([(0, 4, 20)], [A], batching(), processes=[process])
    # Steps end every ten ticks; the one that runs has its token's place already.
    assert story.notes == [(1, 5, 0), (2, 6, 0), (4, 8, 0), (5, 9, 0), (7, 11, 0)]


def test_nothing_is_replanned_after_the_horizon():
    """`EngineSettings`: after the horizon there are no more re-plans."""

    def process(engine, notes):
        yield engine.env.timeout(150)
        engine.replan()

    story = agreed([(0, 0, 200)], [A, TWO], static(), interval=1000, horizon=100, processes=[process])
    assert len(story.summary.plans) == 1
    assert rentals(story.result) == [(0, 0, 200)]
