"""The life of one request, told from the token log in a run directory: its stages, prefill chunks and tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.errors import InputError
from simulator.replica.outcome import Outcome
from simulator.replica.tokenlog import EVENT_COLUMNS, SEGMENT_COLUMNS, IntColumn, LifeEvent, TokenLog
from simulator.ticks import TICKS_PER_S, to_seconds, to_ticks

REQUEST_COLUMNS = [
    *("policy", "arrival_s", "query_type", "input_tokens", "output_tokens"),
    *("outcome", "deployment", "ttft_s", "preemptions"),
]
BEYOND = int(np.iinfo(np.int64).max)  # every step of a replica, and every request

Filters = list[tuple[str, str, Any]]


class StageKind(StrEnum):
    """What a request does between two turns of its life."""

    UNROUTED = "unrouted"  # it has arrived, and no replica was ready to take it
    QUEUED = "queued"  # on a replica
    PREFILL = "prefill"
    DECODE = "decode"
    PREEMPTED = "preempted"  # at the head of the queue again, without its cache
    EVICTED = "evicted"  # its replica has failed and it is on no other yet


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one step prefilled of a prompt. A step that a failure or the end of the run cut is not in the log."""

    step: int  # steps that the replica had completed before
    start_tick: int
    end_tick: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stretch of a life; each begins where the one before it ends.

    Attributes
    ----------
    end_tick
        None if the log does not say, because the request left unserved or the run ended.
    prompt_tokens, chunks
        Of a prefill: what it has to compute, and in which steps it did (none in the static world, which has no steps).
    token_ticks
        Of a decode: when the tokens came.
    """

    kind: StageKind
    replica: int | None
    start_tick: int
    end_tick: int | None
    prompt_tokens: int = 0
    chunks: tuple[Chunk, ...] = ()
    token_ticks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLife:
    """One request of a run from its arrival to its end. Ticks are those of the engine (`simulator/ticks.py`).

    `deployment` is None for a request that was never routed, `finish_tick` unless it was served.
    """

    request: int
    policy: str
    query_type: str
    input_tokens: int
    output_tokens: int
    outcome: Outcome
    deployment: str | None
    preemptions: int
    arrival_tick: int
    finish_tick: int | None
    stages: tuple[Stage, ...]

    @property
    def token_ticks(self) -> tuple[int, ...]:
        return tuple(tick for stage in self.stages for tick in stage.token_ticks)

    @property
    def ttft_s(self) -> float | None:
        """Time to first token."""
        tokens = self.token_ticks
        return self.since_arrival_s(tokens[0]) if tokens else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None unless served with two tokens or more."""
        if self.finish_tick is None or self.output_tokens < 2:
            return None
        return to_seconds(self.finish_tick - self.token_ticks[0]) / (self.output_tokens - 1)

    @property
    def e2e_s(self) -> float | None:
        """Time from arrival to the last token."""
        return None if self.finish_tick is None else self.since_arrival_s(self.finish_tick)

    def since_arrival_s(self, tick: int) -> float:
        return to_seconds(tick - self.arrival_tick)


# -- the run directory ----------------------------------------------------------------------------------------------


def log_frames(log: TokenLog) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Segments and events of a log as tables: the kind of an event is a word, and times stand there in seconds too."""
    segments = pd.DataFrame(log.segments, columns=list(SEGMENT_COLUMNS))
    events = pd.DataFrame(log.events, columns=list(EVENT_COLUMNS))
    words = np.array([kind.name.lower() for kind in LifeEvent], dtype=object)
    kinds = pd.Series(words[log.events[:, 1]], dtype=object)
    return (
        segments.assign(start_s=segments["start_tick"] / TICKS_PER_S),
        events.assign(kind=kinds, time_s=events["tick"] / TICKS_PER_S),
    )


def read_life(directory: Path, request: int, policy: str | None) -> RequestLife:
    """Rebuild the life of a request from a run directory; `policy` may be None if only one was replayed.

    The static world has no steps: it says when the first token came and when the last, and the others are spread evenly
    between them, which is what they do. Where a failure made a request start over after its first token, the others are
    spread over its last stay.

    Raises
    ------
    InputError
        If this is no run directory with a token log, or has no such request or policy.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory")
    if not (directory / "requests.parquet").is_file():
        raise InputError(f"{directory}: is no run directory of a replay (no requests.parquet)")
    if not all((directory / name).is_file() for name in ("segments.parquet", "events.parquet")):
        raise InputError(f"{directory}: holds no token log: replay with --out and --token-log")
    row = _request_row(directory, request, policy)
    of_policy: Filters = [("policy", "==", row.policy)]
    events = _read(directory / "events.parquet", list(EVENT_COLUMNS), [*of_policy, ("request", "==", request)])
    on_replicas: Filters = [*of_policy, ("replica", "in", set(events["replica"]))]
    segments = _read(directory / "segments.parquet", list(SEGMENT_COLUMNS), on_replicas)
    return rebuild_life(request, row, events, segments)


def _request_row(directory: Path, request: int, policy: str | None) -> Any:
    """The row of the request: a named tuple of `REQUEST_COLUMNS`."""
    path = directory / "requests.parquet"
    of_request: Filters = [("request", "==", min(max(request, -1), BEYOND))]
    found: Iterable[Any] = _read(path, REQUEST_COLUMNS, of_request).itertuples(index=False)
    rows = {row.policy: row for row in found}
    if not rows:
        known = _read(path, ["request"], None)["request"]
        there = f"its requests are 0 to {known.max()}" if len(known) else "it has no requests at all"
        raise InputError(f"{directory}: has no request {request}: {there}")
    names = ", ".join(rows)
    if policy is None and len(rows) > 1:
        raise InputError(f"{directory}: several policies were replayed, name one of them with --policy: {names}")
    if policy is not None and policy not in rows:
        raise InputError(f"{directory}: policy {policy!r} was not replayed, expected one of: {names}")
    return rows[policy or names]


def _read(path: Path, columns: list[str], filters: Filters | None) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns, filters=filters)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


# -- rebuilding -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Event:
    kind: LifeEvent
    tick: int
    replica: int
    step: int
    tokens: int


def rebuild_life(request: int, row: Any, event_rows: pd.DataFrame, segment_rows: pd.DataFrame) -> RequestLife:
    """The life of a request from its row of `REQUEST_COLUMNS`, its events, and all segments of its replicas."""
    rows = event_rows[list(EVENT_COLUMNS)].itertuples(index=False)
    events = [_Event(LifeEvent[kind.upper()], *rest) for _, kind, *rest in rows]
    arrival = to_ticks(row.arrival_s)
    outcome = Outcome[row.outcome.upper()]
    first_token = None if pd.isna(row.ttft_s) else arrival + to_ticks(row.ttft_s)
    stages = _stages(row, first_token, events, segment_rows[list(SEGMENT_COLUMNS)].to_numpy(np.int64))
    routed = events[0].tick if events else None
    if routed != arrival and (events or outcome in (Outcome.FAILED, Outcome.IN_FLIGHT)):
        stages.insert(0, Stage(kind=StageKind.UNROUTED, replica=None, start_tick=arrival, end_tick=routed))
    return RequestLife(
        request=request,
        policy=row.policy,
        query_type=row.query_type,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        outcome=outcome,
        deployment=None if pd.isna(row.deployment) else row.deployment,
        preemptions=row.preemptions,
        arrival_tick=arrival,
        finish_tick=events[-1].tick if outcome is Outcome.SERVED else None,
        stages=tuple(stages),
    )


def _stages(row: Any, first_token: int | None, events: Sequence[_Event], segments: IntColumn) -> list[Stage]:
    stages: list[Stage] = []
    generated = 0  # tokens of the answer when it was last taken off a replica
    static = all(event.kind is not LifeEvent.DECODING for event in events)
    for event, following in zip(events, [*events, None][1:], strict=True):
        end = None if following is None else following.tick
        stop = BEYOND if following is None else following.step
        stage = Stage(kind=StageKind.QUEUED, replica=event.replica, start_tick=event.tick, end_tick=end)
        match event.kind:
            case LifeEvent.QUEUED:
                stages.append(stage)
            case LifeEvent.ADMITTED:
                prompt = row.input_tokens + generated
                chunks = tuple(_chunks(event.tokens, prompt, _steps(segments, event.replica, event.step, stop)))
                prefill = replace(stage, kind=StageKind.PREFILL, prompt_tokens=prompt, chunks=chunks)
                if static and first_token is not None:
                    begun = any(earlier.token_ticks for earlier in stages)
                    finishes = following is not None and following.kind is LifeEvent.FINISHED
                    stages += _static_service(prefill, first_token, begun, row.output_tokens if finishes else 1)
                else:
                    stages.append(prefill)
            case LifeEvent.DECODING:
                ends = _steps(segments, event.replica, event.step, stop)[2].tolist()
                tokens = (event.tick, *ends)[: row.output_tokens - generated]
                stages.append(replace(stage, kind=StageKind.DECODE, token_ticks=tokens))
            case LifeEvent.PREEMPTED | LifeEvent.EVICTED:
                generated = event.tokens
                stages.append(replace(stage, kind=StageKind[event.kind.name]))
    return stages


def _static_service(service: Stage, first_token: int, begun: bool, tokens: int) -> list[Stage]:
    """Prefill and decode of one stay in the static world; all of it is decode if the first token came in one before."""
    end = first_token if service.end_tick is None else service.end_tick
    if end < first_token:
        return [service]
    decode = replace(service, kind=StageKind.DECODE, prompt_tokens=0)
    if begun:
        return [replace(decode, token_ticks=_spread(service.start_tick, end, tokens - 1))]
    ticks = (first_token, *_spread(first_token, end, tokens - 1))
    return [replace(service, end_tick=first_token), replace(decode, start_tick=first_token, token_ticks=ticks)]


def _spread(start: int, end: int, tokens: int) -> tuple[int, ...]:
    """Ticks of tokens at equal distances, the last at the end."""
    return tuple(start + (end - start) * number // tokens for number in range(1, tokens + 1))


def _chunks(first: int, prompt: int, steps: IntColumn) -> Iterator[Chunk]:
    """What each step prefilled of a prompt: the first one `first` tokens, the others all they prefilled."""
    left = prompt
    for number, (step, start, end, prefilled) in enumerate(steps.T.tolist()):
        tokens = min(left, prefilled if number else first)
        left -= tokens
        if tokens:
            yield Chunk(step, start, end, tokens)


def _steps(segments: IntColumn, replica: int, first: int, stop: int) -> IntColumn:
    """Steps `first` to `stop` (exclusive) of a replica: number, start, end, prefilled tokens; shape (4, steps)."""
    rows = segments[segments[:, 0] == replica]
    rows = rows[(rows[:, 1] < stop) & (rows[:, 1] + rows[:, 3] > first)]
    sizes = rows[:, 3]
    _, first_step, start, _, ticks, growth, _, prefilled = rows.repeat(sizes, axis=0).T
    j = np.arange(sizes.sum()) - (np.cumsum(sizes) - sizes).repeat(sizes)
    begin = start + ticks * j + growth * (j * (j - 1) // 2)
    steps = np.stack([first_step + j, begin, begin + ticks + growth * j, prefilled])
    return steps[:, (first <= steps[0]) & (steps[0] < stop)]
