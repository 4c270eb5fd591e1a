"""The life that is rebuilt from the token log is the one of the results, in every run and either engine."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from experiments.measures.tables import requests_table
from experiments.measures.tally import Judgement
from experiments.replay.timeline import StageKind, log_frames, rebuild_life
from experiments.report.life import life_dict, life_lines
from simulator.engine import ENGINES
from simulator.fleet.reality import OnFailure, Reality
from simulator.replica.batching import BATCHING
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.replica.static import STATIC
from simulator.ticks import TICKS_PER_S
from tests.engine_bench import LONG, Bench, batching, offer, plan, static
from tests.exploring import examples

COEFFICIENTS = st.integers(0, 3)
SPECS = {
    BATCHING: st.builds(
        batching,
        kv=st.integers(50, 90) | st.just(LONG),
        budget=st.integers(1, 8) | st.integers(20, 64),
        base=st.integers(0, 9),
        prefill=COEFFICIENTS,
        decode=COEFFICIENTS,
        context=COEFFICIENTS,
    ),
    STATIC: st.builds(
        static,
        kv=st.integers(30, 120) | st.just(LONG),
        slots=st.none() | st.integers(1, 4),
        prefill=COEFFICIENTS,
        decode=COEFFICIENTS,
    ),
}


def rebuilt(result):
    """Every life of a run, as `read_life` tells it."""
    size = len(result.requests)
    judgement = Judgement(violated=np.zeros(size, dtype=bool), error=np.full(size, np.nan))
    table = requests_table(result.requests, judgement, pa.array(["trace"] * size, type=pa.string())).to_pandas()
    segments, events = log_frames(result.log)
    by_request = dict(list(events.groupby("request")))
    rows = table.assign(policy="gh").itertuples(index=False)
    return [(row, rebuild_life(n, row, by_request.get(n, events[:0]), segments)) for n, row in enumerate(rows)]


def starts_over(life):
    """Whether a static request lost its replica after its first token."""
    kinds = [stage.kind for stage in life.stages]
    return any(pair == (StageKind.DECODE, StageKind.EVICTED) for pair in pairwise(kinds))


def check(n, row, life, table, discipline):
    stages, tokens = life.stages, life.token_ticks
    served = life.outcome is Outcome.SERVED
    assert life.arrival_tick == table.arrival_tick[n]
    assert (list(tokens[:1]) or [NEVER]) == [table.first_token_tick[n]]
    assert (NEVER if life.finish_tick is None else life.finish_tick) == table.finish_tick[n]
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        value = getattr(life, name)
        np.testing.assert_equal(np.nan if value is None else value, getattr(table, name)[n])
    if served and not (discipline is STATIC and starts_over(life) and row.output_tokens == 1):
        assert len(tokens) == row.output_tokens
        assert not tokens or tokens[-1] == life.finish_tick
    assert len(tokens) <= row.output_tokens

    assert not stages or stages[0].start_tick == life.arrival_tick
    assert all(one.end_tick == other.start_tick for one, other in pairwise(stages))
    assert not served or stages[-1].end_tick == life.finish_tick
    assert sum(stage.kind is StageKind.PREEMPTED for stage in stages) == row.preemptions
    ticks = [tick for stage in stages for tick in (stage.start_tick, *stage.token_ticks, stage.end_tick)]
    known = [tick for tick in ticks if tick is not None]
    assert known == sorted(known)
    assert None not in ticks[:-1]
    if discipline is BATCHING:
        assert (np.diff(tokens) > 0).all()

    came = 0
    for stage, following in zip(stages, [*stages, None][1:], strict=True):
        if stage.kind is StageKind.PREFILL and discipline is BATCHING:
            done = sum(chunk.tokens for chunk in stage.chunks)
            assert stage.prompt_tokens == row.input_tokens + came
            assert done <= stage.prompt_tokens
            edges = [tick for chunk in stage.chunks for tick in (chunk.start_tick, chunk.end_tick)]
            inside = [stage.start_tick, *edges, *([] if stage.end_tick is None else [stage.end_tick])]
            assert inside == sorted(inside)
            if following is not None and following.kind is StageKind.DECODE:
                assert done == stage.prompt_tokens
                assert not edges or edges[-1] == stage.end_tick  # the last chunk gives the first token
        came += len(stage.token_ticks)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("discipline", SPECS, ids=lambda discipline: discipline.name)
@settings(deadline=None, max_examples=examples(50))
@given(data=st.data())
def test_every_life(engine, discipline, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    size, gap = int(rng.integers(1, 26)), data.draw(st.sampled_from([3, 12]))
    columns = np.cumsum(rng.integers(0, gap, size)), rng.integers(0, 30, size), rng.integers(0, 30, size)
    replicas = data.draw(st.integers(1, 3))
    per_ticks = data.draw(st.sampled_from([None, 60, 200, 600]))
    result = Bench(
        list(zip(*(column.tolist() for column in columns), strict=True)),
        [plan({"a": replicas})],
        offer(data.draw(SPECS[discipline]), 20),
        reality=Reality(
            failures_per_replica_h=3600 * TICKS_PER_S / per_ticks if per_ticks else 0.0,
            on_failure=data.draw(st.sampled_from([OnFailure.REQUEUE, OnFailure.REQUEUE, OnFailure.FAIL])),
        ),
        grace=data.draw(st.sampled_from([0, 100, LONG])),
        engine=engine,
        token_log=True,
    ).run()
    told = rebuilt(result)
    for n, (row, life) in enumerate(told):
        check(n, row, life, result.requests, discipline)
        lines = life_lines(life, tokens=True)
        assert max(map(len, lines)) <= 100
        assert sum("  token " in line for line in lines) == len(life.token_ticks) == len(life_dict(life)["tokens"])
    event(f"preempted: {result.requests.preemptions.any()}, lost replicas: {len(result.rentals) > replicas}")
    event(f"chunks: {any(len(stage.chunks) > 2 for _, life in told for stage in life.stages)}")
