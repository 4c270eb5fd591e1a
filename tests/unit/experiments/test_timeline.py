"""The life of one request: by hand from tiny runs, as text, as JSON, and out of run directories."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.measures.tables import requests_table
from experiments.measures.tally import Judgement
from experiments.replay.timeline import StageKind, log_frames, read_life
from experiments.report.life import life_dict, life_lines
from simulator.engine import ENGINES
from simulator.errors import InputError
from simulator.fleet.reality import OnFailure
from simulator.replica.outcome import Outcome
from simulator.replica.tokenlog import EVENT_COLUMNS, SEGMENT_COLUMNS
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import Bench, batching, fail_at, offer, plan, static

A = plan({"a": 1})
MS = TICKS_PER_S // 1000
UNROUTED, QUEUED, PREFILL, DECODE, PREEMPTED, EVICTED = StageKind


def write_run(folder, **results):
    """A run directory with what a life is told from; results by policy."""
    frames = {"requests": [], "segments": [], "events": []}
    for policy, result in results.items():
        size = len(result.requests)
        judgement = Judgement(violated=np.zeros(size, dtype=bool), error=np.full(size, np.nan))
        requests = requests_table(result.requests, judgement, pa.array(["trace"] * size, type=pa.string())).to_pandas()
        segments, events = log_frames(result.log)
        for name, frame in (("requests", requests), ("segments", segments), ("events", events)):
            frames[name].append(frame.assign(policy=policy, seed=0))
    for name, parts in frames.items():
        pq.write_table(pa.Table.from_pandas(pd.concat(parts), preserve_index=False), folder / f"{name}.parquet")
    return folder


def lives(folder, rows, spec, engine, plans=(A,), **kwargs):
    result = Bench(rows, plans, spec, engine=engine, token_log=True, **kwargs).run()
    write_run(folder, gh=result)
    return [read_life(folder, request, None) for request in range(len(rows))]


def stages(life):
    """Kind, replica, start and end."""
    return [(stage.kind, stage.replica, stage.start_tick, stage.end_tick) for stage in life.stages]


def chunks(life):
    """Step, start, end, tokens of every chunk."""
    return [(c.step, c.start_tick, c.end_tick, c.tokens) for stage in life.stages for c in stage.chunks]


both = pytest.mark.parametrize("engine", ENGINES)


@both
def test_prompt_in_chunks(tmp_path, engine):
    spec = batching(budget=8, base=10, prefill=1, decode=2)
    long, short = lives(tmp_path, [(0, 20, 3), (5, 3, 1)], spec, engine)
    assert stages(long) == [(QUEUED, 0, 0, 0), (PREFILL, 0, 0, 53), (DECODE, 0, 53, 77)]
    assert chunks(long) == [(0, 0, 18, 8), (1, 18, 36, 8), (2, 36, 53, 4)]
    assert long.token_ticks == (53, 65, 77)
    assert stages(short) == [(QUEUED, 0, 5, 36), (PREFILL, 0, 36, 53), (DECODE, 0, 53, 53)]
    assert chunks(short) == [(2, 36, 53, 3)]
    assert short.token_ticks == (53,)


@both
def test_steps_that_leave_a_prompt_nothing_give_no_chunk(tmp_path, engine):
    """An empty prompt takes nothing of the budget of one, but its answer does: the other prompt waits half done."""
    _, life = lives(tmp_path, [(0, 0, 4), (0, 3, 1)], batching(budget=1), engine)
    assert stages(life) == [(QUEUED, 0, 0, 0), (PREFILL, 0, 0, 60), (DECODE, 0, 60, 60)]
    assert chunks(life) == [(0, 0, 10, 1), (4, 40, 50, 1), (5, 50, 60, 1)]


@both
def test_preempted_request_starts_again_with_its_tokens_as_prompt(tmp_path, engine):
    _, life = lives(tmp_path, [(0, 4, 4), (0, 4, 4)], batching(kv=10), engine)
    assert stages(life) == [
        (QUEUED, 0, 0, 0),
        (PREFILL, 0, 0, 10),
        (DECODE, 0, 10, 20),
        (PREEMPTED, 0, 20, 40),
        (PREFILL, 0, 40, 50),
        (DECODE, 0, 50, 60),
    ]
    assert [stage.prompt_tokens for stage in life.stages] == [0, 4, 0, 0, 4 + 2, 0]
    assert life.token_ticks == (10, 20, 50, 60)
    assert life.preemptions == 1


@both
def test_request_that_waits_for_a_replica_after_a_failure(tmp_path, monkeypatch, engine):
    reality = fail_at(monkeypatch, {0: 25})
    rows = [(0, 4, 5), (30, 1, 1)]
    spec = offer(batching(prefill=1), startup=20)
    first, late = lives(tmp_path, rows, spec, engine, reality=reality, horizon=100)
    assert stages(first) == [
        (QUEUED, 0, 0, 0),
        (PREFILL, 0, 0, 14),
        (DECODE, 0, 14, 25),
        (EVICTED, 0, 25, 45),
        (QUEUED, 1, 45, 45),
        (PREFILL, 1, 45, 62),
        (DECODE, 1, 62, 82),
    ]
    assert first.token_ticks == (14, 24, 62, 72, 82)
    assert stages(late)[:2] == [(UNROUTED, None, 30, 45), (QUEUED, 1, 45, 45)]


@both
def test_prefill_that_a_failure_cuts_keeps_its_whole_steps(tmp_path, monkeypatch, engine):
    reality = fail_at(monkeypatch, {0: 25}, OnFailure.FAIL)
    (life,) = lives(tmp_path, [(0, 20, 1)], batching(budget=4), engine, reality=reality, horizon=100)
    assert stages(life) == [(QUEUED, 0, 0, 0), (PREFILL, 0, 0, 25), (EVICTED, 0, 25, None)]
    assert chunks(life) == [(0, 0, 10, 4), (1, 10, 20, 4)]
    assert (life.outcome, life.token_ticks, life.finish_tick) == (Outcome.FAILED, (), None)
    assert "prefill: 8 of 20 tokens in 2 chunks" in life_lines(life, tokens=False)[5]


@both
def test_request_that_the_end_of_the_run_cuts(tmp_path, engine):
    (life,) = lives(tmp_path, [(0, 1, 9)], batching(), engine, grace=34)  # the run ends at 35
    assert stages(life)[-1] == (DECODE, 0, 10, None)
    assert life.token_ticks == (10, 20, 30)
    assert (life.tpot_s, life.e2e_s) == (None, None)
    assert "[" not in "".join(life_lines(life, tokens=True)[4:])  # no bar of an unknown whole


@both
def test_static_world_spreads_its_tokens(tmp_path, engine):
    first, waits, silent = lives(tmp_path, [(0, 4, 4), (1, 3, 3), (2, 1, 0)], static(prefill=2, decode=5), engine)
    assert stages(first) == [(QUEUED, 0, 0, 0), (PREFILL, 0, 0, 13), (DECODE, 0, 13, 28)]
    assert first.token_ticks == (13, 18, 23, 28)
    assert waits.token_ticks == (28 + 6 + 5, 44, 49)
    assert stages(silent) == [(QUEUED, 0, 2, 49), (PREFILL, 0, 49, 51)]
    assert (silent.token_ticks, silent.ttft_s) == ((), None)


@both
def test_static_request_that_starts_over(tmp_path, monkeypatch, engine):
    """Lost before its first token it begins anew; lost after it, that token stands and the rest come at the end."""
    spec, rows = offer(static(slots=None, prefill=2, decode=5), startup=20), [(0, 1, 3), (0, 9, 2)]
    early, late = lives(tmp_path, rows, spec, engine, reality=fail_at(monkeypatch, {0: 10}), horizon=100)
    assert stages(early)[1:4] == [(PREFILL, 0, 0, 7), (DECODE, 0, 7, 10), (EVICTED, 0, 10, 30)]
    assert stages(early)[4:] == [(QUEUED, 1, 30, 30), (DECODE, 1, 30, 47)]
    assert early.token_ticks == (7, 38, 47)
    assert stages(late)[1:3] == [(PREFILL, 0, 0, 10), (EVICTED, 0, 10, 30)]
    assert stages(late)[4:] == [(PREFILL, 1, 30, 53), (DECODE, 1, 53, 58)]
    assert late.token_ticks == (53, 58)


@both
def test_requests_that_no_replica_took(tmp_path, engine):
    plans = [plan({"a": 1}, {"p": {"a": 1.0}}, {"q": 1.0})]
    large, unmet = lives(tmp_path, [(0, 50, 1, 0), (3, 1, 1, 1)], batching(kv=10), engine, plans, types=("p", "q"))
    assert (large.outcome, large.stages) == (Outcome.REJECTED_TOO_LARGE, ())
    assert (unmet.outcome, unmet.stages, unmet.deployment) == (Outcome.REJECTED_UNMET, (), None)
    assert "never routed" in life_lines(unmet, tokens=False)[1]


@both
def test_request_that_waits_in_vain_for_a_replica(tmp_path, monkeypatch, engine):
    reality = fail_at(monkeypatch, {0: 5})
    (life,) = lives(tmp_path, [(7, 1, 1)], offer(batching(), startup=50), engine, reality=reality, horizon=40)
    assert (life.outcome, stages(life)) == (Outcome.FAILED, [(UNROUTED, None, 7, None)])


@pytest.fixture
def long_life(tmp_path):
    """Two chunks, then a preemption in the middle of the answer; times of milliseconds."""
    spec = batching(kv=1100, budget=400, base=8 * MS, prefill=MS // 20, decode=MS // 10)
    rows = [(750 * MS, 700, 60), (760 * MS, 300, 80)]
    return lives(tmp_path, rows, spec, "reference", grace=9000 * MS, interval=9000 * MS)[1]


def test_text_of_a_life(long_life):
    assert (
        "\n".join(life_lines(long_life, tokens=False))
        == """\
request 1 under gh: q, 300 tokens of prompt, 80 of answer
arrived at 0.760 s; m/a/tp1/pp1

since arrival        at [s]       took  replica
      0.000 s         0.760    18.0 ms        0  queued
      0.018 s         0.778    46.1 ms        0  prefill: 300 tokens in 2 chunks
      0.018 s         0.778    28.0 ms             100 tokens in step 1
      0.046 s         0.806    18.1 ms             200 tokens in step 2
      0.064 s         0.824   401.8 ms        0  decode: 50 tokens, gaps 8.2 ms mean, 8.2 ms most
      0.466 s         1.226    72.9 ms        0  preempted: cache dropped after 50 tokens
      0.539 s         1.299    25.5 ms        0  prefill: 350 tokens in 1 chunk
      0.564 s         1.324   234.9 ms        0  decode: 30 tokens, gaps 8.1 ms mean, 8.1 ms most
      0.799 s         1.559                      served

[..====####################################xxxxxxx==#####################]
. queued 2%  = prefill 9%  # decode 80%  x preempted 9%
TTFT 64.1 ms, TPOT 9.3 ms, E2E 799.2 ms, 1 preemption, gaps 9.3 ms mean, 98.4 ms most"""
    )


def test_text_with_a_line_for_each_token(long_life):
    lines = [line.split() for line in life_lines(long_life, tokens=True) if "  token " in line]
    assert [line[-1] for line in lines] == [str(number) for number in range(1, 81)]
    assert lines[0][:3] == ["0.064", "s", "0.824"]
    assert lines[-1][:3] == ["0.799", "s", "1.559"]


def test_many_chunks_are_shown_in_part_unless_all_are_asked_for(tmp_path):
    (life,) = lives(tmp_path, [(0, 100, 1)], batching(budget=5), "reference")
    short, whole = ("\n".join(life_lines(life, tokens=tokens)) for tokens in (False, True))
    assert short.count("in step") == 8
    assert "  ... and 12 more chunks\n" in short
    assert whole.count("in step") == 20
    assert "more chunk" not in whole


def test_life_of_no_time_has_no_bar(tmp_path):
    (life,) = lives(tmp_path, [(3, 4, 0)], static(), "reference")
    assert (life.outcome, life.e2e_s) == (Outcome.SERVED, 0.0)
    assert life_lines(life, tokens=True)[-1] == "TTFT -, TPOT -, E2E 0.0 ms, 0 preemptions"


def test_life_for_json(tmp_path, monkeypatch):
    reality = fail_at(monkeypatch, {0: 27 * MS}, OnFailure.FAIL)
    spec = batching(budget=8, base=10 * MS)
    (life,) = lives(tmp_path, [(5 * MS, 12, 9)], spec, "reference", reality=reality, interval=99 * MS, horizon=99 * MS)
    told = life_dict(life)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    ms = MS / TICKS_PER_S
    stages = told.pop("stages")
    assert told == {
        "request": 0,
        "policy": "gh",
        "query_type": "q",
        "input_tokens": 12,
        "output_tokens": 9,
        "deployment": "m/a/tp1/pp1",
        "outcome": "failed",
        "arrival_s": 5 * ms,
        "ttft_s": 20 * ms,
        "tpot_s": None,
        "e2e_s": None,
        "preemptions": 0,
        "tokens": [20 * ms],
    }
    nothing = {"prompt_tokens": 0, "chunks": [], "tokens": 0}
    chunks = [
        {"step": 0, "start_s": 0.0, "duration_s": 10 * ms, "tokens": 8},
        {"step": 1, "start_s": 10 * ms, "duration_s": 10 * ms, "tokens": 4},
    ]
    prefilled = {"prompt_tokens": 12, "chunks": chunks}
    assert stages == [
        {"stage": "queued", "replica": 0, "start_s": 0.0, "duration_s": 0.0, **nothing},
        {"stage": "prefill", "replica": 0, "start_s": 0.0, "duration_s": 20 * ms, **nothing, **prefilled},
        {"stage": "decode", "replica": 0, "start_s": 20 * ms, "duration_s": 2 * ms, **nothing, "tokens": 1},
        {"stage": "evicted", "replica": 0, "start_s": 22 * ms, "duration_s": None, **nothing},
    ]


def test_policies_are_told_apart(tmp_path):
    rows = [(0, 1, 3)]
    fast, slow = (Bench(rows, [A], batching(base=base), token_log=True).run() for base in (10, 30))
    write_run(tmp_path, gh=fast, agh=slow)
    assert read_life(tmp_path, 0, "gh").token_ticks == (10, 20, 30)
    assert read_life(tmp_path, 0, "agh").token_ticks == (30, 60, 90)
    for policy, message in (
        (None, "several policies were replayed, name one of them with --policy: gh, agh"),
        ("milp", "policy 'milp' was not replayed, expected one of: gh, agh"),
    ):
        with pytest.raises(InputError, match=message):
            read_life(tmp_path, 0, policy)


@pytest.mark.parametrize("request_number", [2, -1, 10**30, -(10**30)])
def test_unknown_request(tmp_path, request_number):
    lives(tmp_path, [(0, 1, 1), (1, 1, 1)], batching(), "reference")
    with pytest.raises(InputError, match=f"has no request {request_number}: its requests are 0 to 1"):
        read_life(tmp_path, request_number, None)


def test_folders_that_hold_no_life(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such directory"):
        read_life(tmp_path / "nowhere", 0, None)
    with pytest.raises(InputError, match="is no run directory of a replay"):
        read_life(tmp_path, 0, None)
    write_run(tmp_path, gh=Bench([], [A], batching(), token_log=True).run())
    with pytest.raises(InputError, match="has no request 0: it has no requests at all"):
        read_life(tmp_path, 0, None)
    (tmp_path / "requests.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match=r"requests.parquet: cannot be read"):
        read_life(tmp_path, 0, None)
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(InputError, match="holds no token log: replay with --out and --token-log"):
        read_life(tmp_path, 0, None)


def test_tables_of_a_log():
    segments, events = log_frames(Bench([(0, 1, 2)], [A], batching(), token_log=True).run().log)
    assert list(segments) == [*SEGMENT_COLUMNS, "start_s"]
    assert list(events) == [*EVENT_COLUMNS, "time_s"]
    assert (segments["start_s"] * TICKS_PER_S == segments["start_tick"]).all()
    assert (events["time_s"] * TICKS_PER_S == events["tick"]).all()
    assert events["kind"].tolist() == ["queued", "admitted", "decoding", "finished"]
    numbers = [*segments.drop(columns="start_s").dtypes, *events.drop(columns=["kind", "time_s"]).dtypes]
    assert set(numbers) == {np.dtype(np.int64)}
