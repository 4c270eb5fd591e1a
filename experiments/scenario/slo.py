"""Percentile SLOs: a limit that a share of the requests of a type has to keep, counted request by request.

`p95` of 2 s holds where at most 5 % of the requests took longer. A request that was not served is beyond every limit;
one whose time is not defined (TPOT of a single token) does not count.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simulator.engine.results import RequestTable
from simulator.errors import InputError

BoolColumn = npt.NDArray[np.bool_]

LOWEST, HIGHEST = 0.5, 0.999
MEASURES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
MISSED = 0.05  # how likely a trace may be to show no request beyond a limit that too many break
ROUNDING = 1e-9

_PERCENTILE = re.compile(r"p(?P<percent>\d{1,2}(\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileSlo:
    """At most `1 - level` of the requests may take longer than `limit_s`; `measure` is a key of `MEASURES`."""

    measure: str
    level: float
    limit_s: float

    @property
    def percentile(self) -> str:
        """As scenarios write it: `p95`."""
        return percentile_name(self.level)

    @property
    def label(self) -> str:
        return f"{self.percentile} {MEASURES[self.measure]}"

    @property
    def allowed(self) -> float:
        """Share of the requests that may be beyond the limit."""
        return round(1 - self.level, 9)

    def __str__(self) -> str:
        return f"{self.label} of {self.limit_s:g} s"


def percentile_name(level: float) -> str:
    return f"p{100 * level:.6g}"


def parse_percentile(text: str) -> float:
    """`p95` as 0.95.

    Raises
    ------
    InputError
        If it is none, or not from p50 to p99.9.
    """
    match = _PERCENTILE.fullmatch(text.strip())
    level = round(float(match["percent"]) / 100, 9) if match else 0.0
    if not LOWEST <= level <= HIGHEST:
        raise InputError(f"{text!r} is no percentile from p50 to p99.9, as in p95")
    return level


def parse_slos(stated: Mapping[str, Mapping[str, float]]) -> tuple[PercentileSlo, ...]:
    """Limits by measure and percentile, in the order of `MEASURES` and rising percentiles.

    Raises
    ------
    InputError
        With every percentile that is none, and limits that contradict each other: one that a higher percentile
        undercuts, and an E2E delay below the time to the first token at the same percentile.
    """
    problems: list[str] = []
    slos: list[PercentileSlo] = []
    for measure in MEASURES:
        of_measure: list[PercentileSlo] = []
        for text, limit_s in stated.get(measure, {}).items():
            try:
                of_measure.append(PercentileSlo(measure=measure, level=parse_percentile(text), limit_s=limit_s))
            except InputError as error:
                problems.append(f"{measure}: {error}")
        of_measure.sort(key=lambda slo: slo.level)
        for lower, higher in pairwise(of_measure):
            if lower.level == higher.level:
                problems.append(f"{measure}: {lower.percentile} is stated twice")
            elif higher.limit_s < lower.limit_s:
                problems.append(
                    f"{measure}: {higher.percentile} = {higher.limit_s:g} s is below {lower.percentile} = "
                    f"{lower.limit_s:g} s: they contradict each other, more requests cannot have the smaller limit"
                )
        slos += of_measure
    first = {slo.level: slo for slo in slos if slo.measure == "ttft_s"}
    problems += [
        f"e2e_s: {slo.percentile} = {slo.limit_s:g} s is below that of ttft_s = {first[slo.level].limit_s:g} s: they "
        "contradict each other, the last token does not come before the first"
        for slo in slos
        if slo.measure == "e2e_s" and slo.level in first and slo.limit_s < first[slo.level].limit_s
    ]
    if problems:
        raise InputError(problems)
    return tuple(slos)


def requests_needed(level: float) -> int:
    """Requests from which a trace can tell a percentile: with fewer, a fleet that breaks it may well show no late one.

    If more than `1 - level` of the requests are late, `n` of them all in time have a probability below `level ** n`;
    this is the smallest `n` at which that is below `MISSED` (the exact binomial bound of zero failures).
    """
    return int(np.ceil(np.log(MISSED) / np.log(level)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SloCount:
    """Requests of a type to which a limit applies, and how many of them are beyond it."""

    slo: PercentileSlo
    requests: int
    over: int

    @property
    def share(self) -> float:
        """Beyond the limit, of those to which it applies; zero if there are none."""
        return self.over / self.requests if self.requests else 0.0

    @property
    def held(self) -> bool:
        return self.share <= self.slo.allowed + ROUNDING

    @property
    def slo_ratio(self) -> float:
        """Share beyond the limit over the share that may be: 1 where the SLO just holds."""
        return self.share / self.slo.allowed


def beyond(requests: RequestTable, slo: PercentileSlo, guard: float = 1.0) -> tuple[BoolColumn, BoolColumn]:
    """Which requests the limit applies to, and which of these are beyond `guard` times the limit.

    Returns
    -------
    (applies, over)
        Both of shape (requests,).
    """
    time_s = getattr(requests, slo.measure)
    served = requests.served
    applies = ~served | ~np.isnan(time_s)
    with np.errstate(invalid="ignore"):
        over = ~served | (time_s > guard * slo.limit_s)
    return applies, applies & over


def count_slo(requests: RequestTable, query_type: int, slo: PercentileSlo, guard: float = 1.0) -> SloCount:
    """Count over the requests of one type."""
    of_type = requests.query_type == query_type
    applies, over = beyond(requests, slo, guard)
    return SloCount(slo=slo, requests=int((of_type & applies).sum()), over=int((of_type & over).sum()))
