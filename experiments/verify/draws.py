"""What a plan is tried on: the arrivals that it learns from, a part that was held out, and fresh draws without end.

A trace is cut in time: its first part is learned from, its last part is held out, and fresh draws are block bootstraps
of the first part (blocks keep the bursts within them, `traces.synthetic.resample`). Where the scenario's own arrivals
stand in, every seed is a fresh draw and nothing needs to be held out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from experiments.replay.run import Arriving, horizon_of, survey, workload_of
from experiments.scenario.arrivals import stand_in
from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import percentile_name, requests_needed
from simulator.engine import Workload
from simulator.errors import InputError
from simulator.workload import Trace
from traces.io.chunks import concatenate
from traces.source import TraceInMemory, TraceSource
from traces.synthetic.resample import blocks_of, resample

BLOCK_S = 60.0
LEAST_BLOCKS = 10  # of the part that is learned from: a draw of fewer would be little but repetition


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """Arrivals on the tick clock, with the seed of the router."""

    name: str
    workload: Workload
    horizon_s: float
    seed: int


class Draws(Protocol):
    """Arrivals of one kind; the same number, the same draw.

    Attributes
    ----------
    arriving
        All that is given: what is learned from, and what is held out.
    """

    arriving: Arriving
    learning: Draw
    learning_source: TraceSource
    held_out: Draw | None

    def fresh(self, number: int) -> Draw:
        """Draw `number` (from 0 on) that nothing was learned from."""
        ...

    def fresh_source(self, number: int) -> TraceSource:
        """The same arrivals as a trace."""
        ...


class TraceDraws:
    """Draws of a trace.

    Parameters
    ----------
    hold_out
        Share of the time of the trace that is held out, in [0, 1).

    Raises
    ------
    InputError
        If the trace is too short to be cut into blocks.
    """

    def __init__(self, scenario: Scenario, arriving: Arriving, *, hold_out: float, seed: int) -> None:
        self.arriving = arriving
        trace = whole(arriving.source)
        cut_s = arriving.survey.span_s * (1 - hold_out)
        place = int(np.searchsorted(trace.arrival_s, cut_s, side="right")) if hold_out > 0 else len(trace)
        self._scenario, self._seed = scenario, seed
        self._first = trace.rows(slice(place))
        self._length_s = cut_s
        self._block_s = min(BLOCK_S, self._first.span_s / LEAST_BLOCKS)
        if not len(self._first) or self._block_s <= 0:
            raise InputError("the trace has too few requests to learn from")
        self.learning_source: TraceSource = TraceInMemory(self._first)
        self.learning = draw_of(scenario, self._first, "the part that is learned from", seed)
        self.held_out = None
        if place < len(trace):
            rest = trace.rows(slice(place, None))
            self.held_out = draw_of(
                scenario, replace(rest, arrival_s=rest.arrival_s - cut_s), "the part held out", seed + 1
            )

    def fresh(self, number: int) -> Draw:
        """A block bootstrap of the part that is learned from, as long as it."""
        return draw_of(self._scenario, self._drawn(number), f"fresh draw {number}", self._seed + 2 + number)

    def fresh_source(self, number: int) -> TraceSource:
        return TraceInMemory(self._drawn(number))

    def _drawn(self, number: int) -> Trace:
        with blocks_of(TraceInMemory(self._first), self._block_s) as blocks:
            return concatenated(list(resample(blocks, duration_s=self._length_s, seed=self._seed + 2 + number)))


class ScenarioDraws:
    """Draws of the arrivals that stand in for a trace: seed upon seed.

    Parameters
    ----------
    duration_s, rate_factor
        None for the scenario's own.
    """

    held_out: Draw | None = None

    def __init__(
        self, scenario: Scenario, *, seed: int, duration_s: float | None = None, rate_factor: float | None = None
    ) -> None:
        self._scenario, self._seed = scenario, seed
        self._duration_s, self._rate_factor = duration_s, rate_factor
        self.learning_source = self._source(seed)
        self.arriving = survey(scenario, self.learning_source)
        self.learning = draw_of(scenario, whole(self.learning_source), "the draw that is learned from", seed)

    def fresh(self, number: int) -> Draw:
        """The arrivals of another seed."""
        return self._draw(self._seed + 1 + number, f"fresh draw {number}")

    def fresh_source(self, number: int) -> TraceSource:
        return self._source(self._seed + 1 + number)

    def _draw(self, seed: int, name: str) -> Draw:
        source = self._source(seed)
        survey(self._scenario, source)
        return draw_of(self._scenario, whole(source), name, seed)

    def _source(self, seed: int) -> TraceSource:
        return stand_in(self._scenario, seed=seed, duration_s=self._duration_s, rate_factor=self._rate_factor)


def draw_of(scenario: Scenario, trace: Trace, name: str, seed: int) -> Draw:
    """A trace of which every request matches a query type, as a draw."""
    workload = workload_of(scenario, trace)
    return Draw(name=name, workload=workload, horizon_s=horizon_of(trace.span_s), seed=seed)


def whole(source: TraceSource) -> Trace:
    """A surveyed trace in memory."""
    return concatenated(list(source.chunks()))


def concatenated(chunks: Sequence[Trace]) -> Trace:
    """Chunks of one trace, in order, as one; their sources only ever grow.

    Raises
    ------
    InputError
        If there is no request.
    """
    if not chunks:
        raise InputError("the trace has no request")
    return concatenate(list(chunks))


def refuse_short(scenario: Scenario, draw: Draw, level: float | None) -> list[str]:
    """Refuse arrivals that are too few for the percentiles asked.

    Returns
    -------
    list of str
        Names of the query types without any request: nothing can be verified of them.

    Raises
    ------
    InputError
        With every type that has too few requests, and how long a trace would have enough.
    """
    counts = np.bincount(draw.workload.query_type, minlength=len(scenario.types)).tolist()
    problems, silent = [], []
    for rule, count in zip(scenario.types, counts, strict=True):
        level_of_type = max((slo.level for slo in rule.slos(level)), default=0.0)
        needed = requests_needed(level_of_type) if level_of_type else 0
        if count == 0:
            silent.append(rule.name)
        elif count < needed:
            hours = draw.horizon_s / 3600 * needed / count
            problems.append(
                f"query type {rule.name!r} has {count} requests in {draw.name}, {percentile_name(level_of_type)} needs "
                f"{needed:,} to be told from luck: it would take some {math.ceil(hours * 60):,} min, or a lower "
                "percentile"
            )
    if problems:
        raise InputError(problems)
    return silent
