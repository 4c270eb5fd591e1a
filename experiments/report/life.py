"""The life of one request, told: as text and for `--json`."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from experiments.replay.timeline import Chunk, RequestLife, Stage, StageKind
from experiments.show.parts import DASH
from simulator.replica.outcome import Outcome
from simulator.ticks import TICKS_PER_S, to_seconds

SHOWN_CHUNKS = 8  # of one prefill, unless all are asked for
BAR_CELLS = 72
SYMBOLS = {
    StageKind.UNROUTED: "?",
    StageKind.QUEUED: ".",
    StageKind.PREFILL: "=",
    StageKind.DECODE: "#",
    StageKind.PREEMPTED: "x",
    StageKind.EVICTED: "!",
}

ENDINGS = {
    Outcome.IN_FLIGHT: "in flight: the run ended before it was done",
    Outcome.SERVED: "served",
    Outcome.REJECTED_UNMET: "rejected: the plan leaves a share of its type unmet",
    Outcome.REJECTED_TOO_LARGE: "rejected: too large for the KV cache of its replica",
    Outcome.FAILED: "failed, with its replica or for want of one",
}


def life_dict(life: RequestLife) -> dict[str, Any]:
    """A life for `--json`: times in seconds since arrival, but for the arrival itself, which is since the start."""

    def span(part: Stage | Chunk) -> dict[str, float | None]:
        end = part.end_tick
        return {
            "start_s": life.since_arrival_s(part.start_tick),
            "duration_s": None if end is None else to_seconds(end - part.start_tick),
        }

    return {
        "request": life.request,
        "policy": life.policy,
        "query_type": life.query_type,
        "input_tokens": life.input_tokens,
        "output_tokens": life.output_tokens,
        "deployment": life.deployment,
        "outcome": life.outcome.name.lower(),
        "arrival_s": to_seconds(life.arrival_tick),
        "ttft_s": life.ttft_s,
        "tpot_s": life.tpot_s,
        "e2e_s": life.e2e_s,
        "preemptions": life.preemptions,
        "stages": [
            {
                "stage": str(stage.kind),
                "replica": stage.replica,
                **span(stage),
                "prompt_tokens": stage.prompt_tokens,
                "chunks": [{"step": chunk.step, **span(chunk), "tokens": chunk.tokens} for chunk in stage.chunks],
                "tokens": len(stage.token_ticks),
            }
            for stage in life.stages
        ],
        "tokens": [life.since_arrival_s(tick) for tick in life.token_ticks],
    }


def life_lines(life: RequestLife, *, tokens: bool) -> list[str]:
    """A life as text of at most 100 columns; with `tokens` a line for every prefill chunk and every token."""
    came = accumulate((len(stage.token_ticks) for stage in life.stages), initial=0)
    return [
        f"request {life.request} under {life.policy}: {life.query_type}, "
        f"{_count(life.input_tokens, 'token')} of prompt, {life.output_tokens:,} of answer",
        f"arrived at {to_seconds(life.arrival_tick):,.3f} s; {life.deployment or 'never routed'}",
        "",
        f"{'since arrival':>13}  {'at [s]':>12}  {'took':>9}  replica",
        *(line for stage in zip(life.stages, came, strict=False) for line in _stage_lines(life, *stage, tokens)),
        _line(life, life.finish_tick, None, None, ENDINGS[life.outcome]),
        "",
        *_bar(life),
        f"TTFT {_time(life.ttft_s)}, TPOT {_time(life.tpot_s)}, E2E {_time(life.e2e_s)}, "
        f"{_count(life.preemptions, 'preemption')}{_gaps(life.token_ticks)}",
    ]


def _stage_lines(life: RequestLife, stage: Stage, before: int, tokens: bool) -> Iterator[str]:
    """Lines of a stage before which so many tokens of the answer came."""
    yield _line(life, stage.start_tick, stage.end_tick, stage.replica, _what(stage, before))
    shown = len(stage.chunks) if tokens else SHOWN_CHUNKS
    if len(stage.chunks) > 1:
        for chunk in stage.chunks[:shown]:
            what = f"  {_count(chunk.tokens, 'token')} in step {chunk.step:,}"
            yield _line(life, chunk.start_tick, chunk.end_tick, None, what)
    if len(stage.chunks) > shown:
        yield _line(life, None, None, None, f"  ... and {_count(len(stage.chunks) - shown, 'more chunk')}")
    if tokens:
        for number, tick in enumerate(stage.token_ticks, start=before + 1):
            yield _line(life, tick, None, None, f"  token {number:,}")


def _what(stage: Stage, before: int) -> str:
    match stage.kind:
        case StageKind.UNROUTED:
            return "no replica was ready"
        case StageKind.QUEUED:
            return "queued"
        case StageKind.PREFILL:
            done = sum(chunk.tokens for chunk in stage.chunks)
            part = f"{done:,} of " if 0 < done < stage.prompt_tokens else ""
            chunks = f" in {_count(len(stage.chunks), 'chunk')}" if stage.chunks else ""
            return f"prefill: {part}{_count(stage.prompt_tokens, 'token')}{chunks}"
        case StageKind.DECODE:
            return f"decode: {_count(len(stage.token_ticks), 'token')}{_gaps(stage.token_ticks)}"
        case StageKind.PREEMPTED:
            return f"preempted: cache dropped after {_count(before, 'token')}"
        case StageKind.EVICTED:
            return f"evicted: its replica failed after {_count(before, 'token')}"


def _line(life: RequestLife, start: int | None, end: int | None, replica: int | None, what: str) -> str:
    since, at, took = "", "", ""
    if start is not None:
        since, at = f"{life.since_arrival_s(start):,.3f} s", f"{to_seconds(start):,.3f}"
        took = "" if end is None else _time(to_seconds(end - start))
    return f"{since:>13}  {at:>12}  {took:>9}  {'' if replica is None else replica:>7}  {what}"


def _bar(life: RequestLife) -> list[str]:
    """The stages of a served request in proportion, and their shares of its time."""
    if not life.e2e_s:
        return []
    ends = [to_seconds(stage.end_tick - life.arrival_tick) for stage in life.stages if stage.end_tick is not None]
    middles = [(cell + 0.5) / BAR_CELLS * life.e2e_s for cell in range(BAR_CELLS)]
    took = dict.fromkeys(StageKind, 0.0)
    for stage, (start, end) in zip(life.stages, pairwise([0.0, *ends]), strict=True):
        took[stage.kind] += end - start
    cells = "".join(SYMBOLS[life.stages[bisect_right(ends, middle)].kind] for middle in middles)
    shares = [f"{SYMBOLS[kind]} {kind} {took[kind] / life.e2e_s:.0%}" for kind in StageKind if took[kind]]
    return [f"[{cells}]", "  ".join(shares)]


def _gaps(token_ticks: Sequence[int]) -> str:
    gaps = np.diff(token_ticks)
    if not len(gaps):
        return ""
    return f", gaps {_time(gaps.mean() / TICKS_PER_S)} mean, {_time(gaps.max() / TICKS_PER_S)} most"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    return f"{seconds:,.3f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
