"""What every discipline of the registry owes, and a third one of the tests' own that no code but its file knows of."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.replay.controller import nominal_problem
from experiments.scenario.scenario import load_scenario
from simulator.delay import StepCost, TwoPhaseDelay
from simulator.engine import choose_engine
from simulator.errors import InputError
from simulator.fleet.reality import OnFailure, Reality
from simulator.moments import TokenMoments
from simulator.planning.problem import CapacityRows
from simulator.replica.outcome import Outcome
from simulator.replica.port import NominalReplica, ReplicaSpec, TypeLoad
from simulator.replica.registry import DISCIPLINES, discipline_of
from simulator.ticks import TICKS_PER_S, to_ticks
from tests.engine_bench import Bench, agreed, hold_together, offer, plan
from tests.last_come import LAST_COME
from tests.verify_samples import SMALL

EVERY = [*DISCIPLINES.values(), LAST_COME]
COMPILED = [discipline for discipline in EVERY if discipline.kernel is not None]
REPLICA = NominalReplica(
    step=StepCost(base_s=8e-3, prefill_s_per_token=3e-5, decode_s_per_sequence=3e-5, context_s_per_token=6e-8),
    request_delay=TwoPhaseDelay(prefill_s_per_token=3e-5, decode_s_per_token=1e-2),
    kv_capacity_tokens=20_000,
    token_budget=2048,
)

every = pytest.mark.parametrize("discipline", EVERY, ids=lambda discipline: discipline.name)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(DISCIPLINES, LAST_COME.name, LAST_COME)


def spec_of(discipline, **changes):
    """`REPLICA` in ticks."""
    delay = REPLICA.request_delay
    spec = ReplicaSpec(
        discipline=discipline,
        step=REPLICA.step.ticks(),
        prefill_ticks_per_token=to_ticks(delay.prefill_s_per_token),
        decode_ticks_per_token=to_ticks(delay.decode_s_per_token),
        kv_capacity_tokens=REPLICA.kv_capacity_tokens,
        token_budget=REPLICA.token_budget,
    )
    return replace(spec, **changes)


def lengths(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(50, 2000, size).astype(float), rng.integers(20, 300, size).astype(float)


def bench_of(discipline, seed):
    """A crowd on two small replicas that are planned anew, fail now and then, and are cut off at the end."""
    h, f = lengths(150, seed)
    arrival = np.sort(np.random.default_rng(seed).integers(0, 30 * TICKS_PER_S, len(h)))
    return {
        "rows": list(zip(arrival.tolist(), h.astype(int).tolist(), f.astype(int).tolist(), strict=True)),
        "plans": [plan({"a": 2}, {"q": {"a": 0.9}}, {"q": 0.1}), plan({"a": 1, "b": 1})],
        "offers": {
            "a": offer(spec_of(discipline, kv_capacity_tokens=4000), startup=TICKS_PER_S),
            "b": offer(spec_of(discipline, kv_capacity_tokens=1500), startup=TICKS_PER_S),
        },
        "interval": 20 * TICKS_PER_S,
        "grace": TICKS_PER_S,
        "reality": Reality(failures_per_replica_h=200.0, on_failure=list(OnFailure)[seed % 2]),
        "token_log": True,
    }


def test_the_registry_goes_by_their_names():
    assert [discipline.name for discipline in DISCIPLINES.values()] == list(DISCIPLINES)
    kernels = [discipline.kernel for discipline in COMPILED]
    assert len(set(kernels)) == len(kernels)
    with pytest.raises(InputError, match="'statik' is unknown; did you mean 'static'"):
        discipline_of("statik")


@every
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_and_every_run_is_the_same(discipline, seed):
    story = Bench(**bench_of(discipline, seed)).story()
    counts = story.summary.counts
    assert sum(counts.values()) == len(story.requests) == 150
    for outcome in (Outcome.SERVED, Outcome.REJECTED_UNMET, Outcome.IN_FLIGHT):
        assert counts[outcome] > 0, outcome
    served = story.requests.served
    assert (story.requests.finish_tick[served] > story.requests.arrival_tick[served]).all()
    assert all(rental.kv_peak_tokens <= rental.kv_capacity_tokens for rental in story.summary.rentals)
    hold_together(story, Bench(**bench_of(discipline, seed)).story())


@pytest.mark.parametrize("discipline", COMPILED, ids=lambda discipline: discipline.name)
@pytest.mark.parametrize("seed", range(8))
def test_the_engines_agree_to_the_bit(discipline, seed):
    agreed(**bench_of(discipline, seed))


def test_the_compiled_engine_refuses_what_it_does_not_have():
    message = "cannot run discipline 'last-come', which has no kernel: --engine reference can"
    with pytest.raises(InputError, match=message):
        choose_engine("compiled", discipline=LAST_COME)
    assert choose_engine("reference", discipline=LAST_COME).name == "reference"
    with pytest.raises(InputError, match=message):
        Bench(**bench_of(LAST_COME, 0), engine="compiled").run()


@every
def test_work_is_positive_and_adds_up(discipline):
    h, f = lengths(500)
    work_s, each = discipline.work_s(REPLICA, h, f), TokenMoments.of(h, f)
    assert (work_s > 0).all()
    assert (discipline.work_s(REPLICA, h + 1, f) > work_s).all()
    assert (discipline.work_s(REPLICA, h, f + 1) > work_s).all()
    planned_s = float(discipline.planned_work_s(REPLICA, each.total()))
    assert planned_s == pytest.approx(float(discipline.planned_work_s(REPLICA, each).sum()))
    assert planned_s == pytest.approx(float(work_s.sum()), rel=0.01)
    assert planned_s >= float(work_s.sum()) * (1 - 1e-9), "plans are on the safe side"
    assert min(discipline.token_work_s(REPLICA)) >= 0


@every
def test_the_share_for_work_grows_with_the_limit(discipline):
    shares = discipline.share_for_work(REPLICA, np.array([0.004, 0.01, 0.05, np.inf]))
    assert ((shares > 0) & (shares <= 1)).all()
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] == 1


@every
def test_a_request_alone_is_as_expected(discipline):
    h, f = 600, 120
    (row,) = Bench([(0, h, f)], [plan({"a": 1})], spec_of(discipline), grace=60 * TICKS_PER_S).run().requests.e2e_s
    tokens = TokenMoments.means(h, f, h * f, f * f, h * h)
    expected = discipline.expected(REPLICA, 1, [TypeLoad(rate_per_s=1e-9, tokens=tokens)])
    assert expected.delay_s == pytest.approx(row, rel=1e-6)
    assert expected.requests_per_s == 1e-9


@every
def test_the_expected_load_is_the_work_that_arrives(discipline):
    h, f = lengths(500)
    tokens = TokenMoments.of(h, f).total().mean()
    work_s = float(discipline.work_s(REPLICA, h, f).mean())

    def at(rate_per_s, replicas=2):
        return discipline.expected(REPLICA, replicas, [TypeLoad(rate_per_s=rate_per_s, tokens=tokens)])

    calm, busy = at(0.1 / work_s), at(1.0 / work_s)
    assert (calm.load, busy.load) == (pytest.approx(0.05), pytest.approx(0.5))
    assert (busy.delay_s > calm.delay_s, busy.tpot_s > calm.tpot_s) == (discipline.queues, discipline.queues)
    nothing = at(0.0)
    assert (nothing.requests_per_s, nothing.load) == (0.0, 0.0)
    assert np.isnan([nothing.tpot_s, nothing.delay_s]).all()
    assert at(1.0 / work_s).load == pytest.approx(at(2.0 / work_s, replicas=4).load)


@every
def test_the_capacity_rows_count_the_same_work(discipline, registered, tmp_path):
    """Of `batching` rows it is the load, over the share that the target leaves; of `paper` rows the KV cache."""
    text = SMALL.replace('discipline = "batching"', f'discipline = "{discipline.name}"')
    text = text.replace('capacity = "batching"', f'capacity = "{discipline.capacity_rows}"')
    text = text.replace("[catalog]", "[catalog]\nmemory_utilisation = 1.0").replace("budget = 512", "budget = 1000000")
    (tmp_path / "scenario.toml").write_text(text)
    scenario = load_scenario(str(tmp_path / "scenario.toml"))
    problem = nominal_problem(scenario)
    row = problem.load if discipline.capacity_rows is CapacityRows.BATCHING else problem.kv
    for a, configuration in enumerate(problem.configurations):
        replica = scenario.nominal_replica(configuration.deployment_key)
        share = discipline.share_for_work(replica, configuration.tpot_target_s or np.inf)
        for i, query_type in enumerate(problem.query_types):
            h, f = query_type.input_tokens, query_type.output_tokens
            work_s = float(discipline.planned_work_s(replica, TokenMoments.means(h, f, h * f, f * f)))
            expected = query_type.arrival_per_h / 3600 * work_s / share
            assert not problem.allowed[i, a] or row[i, a] == pytest.approx(expected, rel=1e-4)


# -- a third discipline, from the scenario file to the report -------------------------------------------------------


@pytest.fixture
def scenario_file(registered, tmp_path):
    file = tmp_path / "last-come.toml"
    file.write_text(SMALL.replace('discipline = "batching"', 'discipline = "last-come"').replace("300.0", "120.0", 1))
    return file


def test_a_third_one_is_planned_replayed_checked_and_reported(scenario_file, run_cli, tmp_path):
    common = ["replay", "--policy", "gh", "--interval", "1m", "--engine", "reference", "--json"]
    done = run_cli(*common, "--scenario", scenario_file, "--out", tmp_path / "run")
    assert done.code == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["arrived"] == run["served"] + run["rejected"] + run["failed"] + run["in_flight"]
    assert run["served"] > 100
    done = run_cli("report", tmp_path / "run", "--markdown", tmp_path / "report.md", "--out", tmp_path / "report.html")
    assert done.code == 0, done.stderr
    assert "Planned against simulated" in (tmp_path / "report.md").read_text()
    assert "last-come" in (tmp_path / "report.html").read_text()


def test_the_last_who_came_is_the_first_who_starts():
    """One prompt fills a step: of three that come during the first, the newest is served before the others."""
    rows = [(0, 100, 1), (1, 100, 1), (2, 100, 1), (3, 100, 1)]
    spec = spec_of(LAST_COME, token_budget=100)
    found = Bench(rows, [plan({"a": 1})], spec, grace=60 * TICKS_PER_S).run().requests
    assert np.argsort(found.finish_tick).tolist() == [0, 3, 2, 1]


def test_the_default_engine_refuses_it_and_leaves_nothing(scenario_file, run_cli, tmp_path):
    done = run_cli("replay", "--policy", "gh", "--scenario", scenario_file, "--out", tmp_path / "run")
    assert done.code == 2
    assert "cannot run discipline 'last-come', which has no kernel: --engine reference can" in done.stderr
    assert not (tmp_path / "run").exists()
