"""Synthetic traces that resemble a real one, for where no file is at hand.

Arrivals are a doubly stochastic Poisson (Cox) process: the rate of a source is its mean rate, or its curve over the
week, times independent factors (`RateComponent`), each at its own time scale, so that counts are as over-dispersed as
in the real trace. Where a profile says so, some requests follow another one within milliseconds. Token counts have the
real quantiles and the real rank correlation of input and output, and where the profile has them the real frequencies of
their ranks together. What is lost: any dependence of tokens on time and on one another, and any dependence of
the sources on each other beyond their curves (docs/traces.md tells what that comes to).

A trace is made hour by hour. Each hour has random streams of its own, begins at the levels of the rate at which
the one before ended, and is scaled so that its expected number of requests is the one that the curve states.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.rng import stream
from simulator.workload import Trace, merge_traces
from traces.io.chunks import concatenate
from traces.synthetic.profile import Profile, RateComponent, SourceProfile, load_profile
from traces.synthetic.ratecurve import HOUR_S, RateCurve

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int32]

MAX_REQUESTS_PER_H = 2e7
"""Of one source: an hour is made at once, and this many requests take some 2 GB while they are."""

WALK_LIMIT = 4.0
"""A random walk of the rate stays between a quarter of the rate and four times it, or a day could end anywhere."""

MIN_STEP_S = 1.0
"""A walk of the rate may not have shorter steps."""

CURVE_STEP_S = 10.0
"""For this long the rate of a curve counts as constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatility:
    """A geometric random walk that multiplies the rate of a source.

    Every `step_s` it is multiplied by exp(sigma N(0, 1) - sigma^2 / 2), whose mean is one, and kept within
    `WALK_LIMIT`. It begins with one; each source has a walk of its own.
    """

    sigma: float
    step_s: float = 300.0


def stream_trace(
    profile: Profile,
    *,
    duration_s: float,
    seed: int,
    rate_factor: float = 1.0,
    time_factor: float = 1.0,
    start: datetime | None = None,
    volatility: Volatility | None = None,
) -> Iterator[Trace]:
    """Generate a trace of all sources of a profile an hour at a time: memory grows with the busiest hour alone.

    A shorter trace is the beginning of a longer one of the same seed.

    Parameters
    ----------
    duration_s
        Arrivals fall in [0, duration_s).
    rate_factor
        Multiplies the arrival rates; the bursts stay, relative to the rate, and their time scales too.
    time_factor
        Stretches time: curves, bursts and gaps last this many times as long. The number of requests in the stretched
        time stays, so that rates are divided by it.
    start
        Where on the curve the trace begins; without a zone it is in UTC. None: where the curve begins.
    volatility
        A random walk of the rate, in the time of the trace that is made (`time_factor` does not stretch it).

    Returns
    -------
    Iterator of Trace
        Chunks with at least one request and the same `sources` and `start`, which is None if neither `start` nor the
        curve says. Times are multiples of 100 ns as in the Azure trace.

    Raises
    ------
    InputError
        If a number is out of its range, or an hour has more than `MAX_REQUESTS_PER_H`.
    """
    refuse_unless_positive(duration_s=duration_s, rate_factor=rate_factor, time_factor=time_factor)
    if volatility is not None:
        if not (math.isfinite(volatility.sigma) and volatility.sigma >= 0):
            raise InputError(f"volatility: expected a finite number from zero, found {volatility.sigma}")
        if not volatility.step_s >= MIN_STEP_S:
            raise InputError(f"volatility step: expected at least {MIN_STEP_S:g} s, found {volatility.step_s}")
        volatility = replace(volatility, step_s=volatility.step_s / time_factor)
    begins = profile.curve_start if start is None else start
    offset_s = 0.0
    if start is not None and profile.curve_start is not None:
        offset_s = (in_utc(start) - in_utc(profile.curve_start)).total_seconds()
    made = [_Source(profile, source, seed, rate_factor, offset_s, volatility) for source in profile.sources]
    hours = math.ceil(duration_s / time_factor / HOUR_S)
    return laid_out(([one.hour(hour, time_factor, duration_s) for one in made] for hour in range(hours)), begins)


def synthesise(profile: Profile, *, duration_s: float, seed: int, rate_factor: float = 1.0) -> Trace:
    """Generate a trace of all sources of a profile in memory; see `stream_trace`."""
    none = np.empty(0, dtype=np.int32)
    nothing = Trace(
        sources=tuple(source.name for source in profile.sources),
        start=profile.curve_start,
        arrival_s=np.empty(0),
        source=none,
        input_tokens=none,
        output_tokens=none,
    )
    hours = stream_trace(profile, duration_s=duration_s, seed=seed, rate_factor=rate_factor)
    return concatenate([nothing, *hours])


def embedded_hour(seed: int = 0) -> Trace:
    """One hour like the Azure trace of 2023: sources `conv` and `code`."""
    return synthesise(load_profile(), duration_s=3600.0, seed=seed)


def without_curve(profile: Profile) -> Profile:
    """The profile at its mean rates."""
    return replace(profile, curve_start=None, sources=tuple(replace(s, requests_per_h=()) for s in profile.sources))


def without_bursts(profile: Profile) -> Profile:
    """The profile with arrivals that are Poisson given its curve."""
    calm = tuple(replace(s, modulation=(), follow_share=0.0, follow_delay_s=0.0) for s in profile.sources)
    return replace(profile, sources=calm)


def in_utc(moment: datetime) -> datetime:
    """The moment with a zone; without one it is in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def refuse_unless_positive(**values: float) -> None:
    """Raise InputError, with its name, for a number that is not finite and above zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name}: expected a finite number above zero, found {value}")


def laid_out(stretches: Iterable[Sequence[Trace]], start: datetime | None) -> Iterator[Trace]:
    """Successive stretches of time, each merged from its parts, as chunks of one trace; empty ones are left out."""
    for parts in stretches:
        chunk = merge_traces(parts)
        if len(chunk):
            yield replace(chunk, start=start)


class _Source:
    """One source of a trace in the making: its hours have to be asked for in their order."""

    def __init__(
        self,
        profile: Profile,
        source: SourceProfile,
        seed: int,
        rate_factor: float,
        offset_s: float,
        volatility: Volatility | None,
    ) -> None:
        self._source = source
        self._seed = seed
        self._prefix = f"traces/{profile.name}/{source.name}"
        self._rate_factor = rate_factor
        self._curve = RateCurve(source.requests_per_h) if source.requests_per_h else None
        self._offset_s = offset_s
        self._walk = None if volatility is None else _Walk(volatility, seed, self._prefix)
        self._levels: list[float | None] = [None] * len(source.modulation)
        self._tokens = _Tokens(profile, source)

    def hour(self, number: int, time_factor: float, duration_s: float) -> Trace:
        """The requests of one hour that arrive before `duration_s`, at their times in the stretched trace."""
        # The first hour has the streams that it had when there was no other: published figures rest on it.
        prefix = self._prefix if number == 0 else f"{self._prefix}/hour-{number}"
        arrival_s = self._arrivals(prefix, number * HOUR_S)
        arrival_s = arrival_s[arrival_s < (number + 1) * HOUR_S]  # one may have been rounded up to the end
        if time_factor != 1:
            arrival_s = np.round(arrival_s * time_factor, 7)
        arrival_s = arrival_s[: np.searchsorted(arrival_s, duration_s)]
        input_tokens, output_tokens = self._tokens.draw(len(arrival_s), stream(self._seed, f"{prefix}/tokens"))
        return Trace(
            sources=(self._source.name,),
            arrival_s=arrival_s,
            source=np.zeros(len(arrival_s), dtype=np.int32),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )

    def _arrivals(self, prefix: str, begin_s: float) -> _Floats:
        """Arrival times: a Poisson process of rate one on the clock of the cumulative rate, read back in seconds."""
        source = self._source
        factors = []
        for k, component in enumerate(source.modulation):
            times_s, levels = _levels(component, stream(self._seed, f"{prefix}/modulation/{k}"), self._levels[k])
            self._levels[k] = float(levels[-1])
            factors.append((times_s, levels))
        edges_s, expected, rate = self._rate(begin_s, [times_s for times_s, _ in factors])
        if expected > MAX_REQUESTS_PER_H:
            hour = f"the hour from {begin_s / HOUR_S:g} h on"
            raise InputError(
                f"source {source.name}: expected at most {MAX_REQUESTS_PER_H:.3g} requests in an hour, found "
                f"{expected:.3g} in {hour}: lower the rate factor"
            )
        level = np.ones(len(edges_s) - 1)
        for times_s, levels in factors:
            level *= levels[np.searchsorted(times_s, edges_s[:-1], side="right") - 1]
        cumulative = np.concatenate([[0.0], np.cumsum(level * rate * np.diff(edges_s))])
        if cumulative[-1] == 0:  # silence from end to end
            return np.empty(0)
        rng = stream(self._seed, f"{prefix}/arrivals")
        count = rng.poisson(expected * (1 - source.follow_share))
        arrival_s: _Floats = np.interp(np.sort(rng.random(count)) * cumulative[-1], cumulative, edges_s)
        if source.follow_share > 0:
            arrival_s = np.concatenate([arrival_s, _followers(source, arrival_s, rng)])
            arrival_s.sort()
        return np.round(begin_s + arrival_s, 7)

    def _rate(self, begin_s: float, levels_s: list[_Floats]) -> tuple[_Floats, float, _Floats | float]:
        """Edges within the hour between which the rate is constant, the requests that it has, and its rate but for the
        factors, up to a constant."""
        edges_s = [np.array([0.0, HOUR_S]), *levels_s]
        if self._curve is not None:
            from_s = self._offset_s + begin_s
            edges_s += [
                np.arange(CURVE_STEP_S, HOUR_S, CURVE_STEP_S),
                self._curve.bends_s(from_s, from_s + HOUR_S) - from_s,
            ]
        if self._walk is not None:
            walk_s, walk = self._walk.steps(begin_s, begin_s + HOUR_S)
            edges_s.append(walk_s[1:] - begin_s)
        all_s = np.unique(np.concatenate(edges_s))
        scale = self._source.rate_per_s * self._rate_factor
        if self._curve is None and self._walk is None:
            return all_s, scale * HOUR_S, 1.0
        rate = np.full(len(all_s) - 1, scale)
        middle_s = (all_s[:-1] + all_s[1:]) / 2
        if self._curve is not None:
            rate = self._curve.rate_per_s(from_s + middle_s) * self._rate_factor
        if self._walk is not None:
            rate = rate * walk[np.searchsorted(walk_s, begin_s + middle_s, side="right") - 1]
        return all_s, float((rate * np.diff(all_s)).sum()), rate


class _Walk:
    """A geometric random walk, of which successive stretches are asked for in their order."""

    def __init__(self, volatility: Volatility, seed: int, prefix: str) -> None:
        self._volatility = volatility
        self._rng = stream(seed, f"{prefix}/volatility")
        self._number = 0
        self._level = 1.0

    def steps(self, begin_s: float, end_s: float) -> tuple[_Floats, _Floats]:
        """Times from which the walk has each level, the first at or before `begin_s`, and the levels."""
        step_s, sigma = self._volatility.step_s, self._volatility.sigma
        first, last = math.floor(begin_s / step_s), math.ceil(end_s / step_s) - 1
        levels = []
        for number in range(first, last + 1):
            if number > self._number:
                factor = math.exp(sigma * self._rng.standard_normal() - sigma**2 / 2)
                self._level = min(max(self._level * factor, 1 / WALK_LIMIT), WALK_LIMIT)
                self._number = number
            levels.append(self._level)
        return np.arange(first, last + 1, dtype=np.float64) * step_s, np.array(levels)


def _levels(component: RateComponent, rng: np.random.Generator, before: float | None) -> tuple[_Floats, _Floats]:
    """Times in an hour, beginning with zero, from which the factor has each level, and the levels up to a constant.

    The level `before` the hour lasts until the first time at which one is drawn.
    """
    draws = rng.poisson(HOUR_S / component.time_scale_s)
    times_s = np.concatenate([[0.0], np.sort(rng.random(draws)) * HOUR_S])
    # Silence alone has 1 + squared_cv = 1 / on_share; a log-normal level multiplies this by the exponential of the
    # variance of its logarithm. The mean is left out: the caller scales the product of all factors.
    log_variance = max(math.log((1 + component.squared_cv) * component.on_share), 0.0)
    level = np.exp(math.sqrt(log_variance) * rng.standard_normal(draws + 1))
    level = np.where(rng.random(draws + 1) < component.on_share, level, 0.0)
    if before is not None:
        level[0] = before
    return times_s, level


def _followers(source: SourceProfile, arrival_s: _Floats, rng: np.random.Generator) -> _Floats:
    """Times of the requests that follow others, so that clusters have geometric sizes and exponential gaps."""
    followers = rng.geometric(1 - source.follow_share, len(arrival_s)) - 1
    leaders = np.flatnonzero(followers)
    sizes = followers[leaders]
    ends = np.cumsum(sizes)
    since_s = np.cumsum(rng.exponential(source.follow_delay_s, int(sizes.sum())))
    begun_s = np.concatenate([[0.0], since_s[ends[:-1] - 1]]) if len(ends) else np.empty(0)
    since_s -= np.repeat(begun_s, sizes)
    # A cluster that would leave the hour comes before its first request instead: its gaps stay, the hour too.
    leader_s = arrival_s[leaders]
    backwards = leader_s + (since_s[ends - 1] if len(ends) else 0.0) >= HOUR_S
    direction = np.where(backwards, -1.0, 1.0)
    return np.clip(np.repeat(leader_s, sizes) + np.repeat(direction, sizes) * since_s, 0.0, None)


class _Tokens:
    """Pairs of input and output tokens: quantiles, joined by a Gaussian copula or by frequencies of ranks."""

    def __init__(self, profile: Profile, source: SourceProfile) -> None:
        self._levels = np.array(profile.quantile_levels)
        self._quantiles = np.array(source.input_tokens), np.array(source.output_tokens)
        # The correlation of the normal variables that gives this rank correlation (Pearson, 1907).
        self._correlation = 2 * math.sin(math.pi * source.spearman / 6)
        self._joint = np.array(source.joint)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[_Ints, _Ints]:
        ranks = self._ranks(count, rng) if self._joint.size else self._gaussian_ranks(count, rng)
        columns = [
            np.rint(np.interp(rank, self._levels, quantiles)).astype(np.int32)
            for rank, quantiles in zip(ranks, self._quantiles, strict=True)
        ]
        return columns[0], columns[1]

    def _gaussian_ranks(self, count: int, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
        normal = rng.standard_normal((count, 2))
        normal[:, 1] = self._correlation * normal[:, 0] + math.sqrt(1 - self._correlation**2) * normal[:, 1]
        from scipy.special import ndtr  # here: SciPy takes longer to load than most commands

        uniform: _Floats = ndtr(normal)
        return uniform[:, 0], uniform[:, 1]

    def _ranks(self, count: int, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
        """A cell of the table, and a place in it from what is left of the first draw and from the second."""
        rows, columns = self._joint.shape
        share = self._joint.ravel() / self._joint.sum()
        up_to = np.cumsum(share)
        draws = rng.random((count, 2))
        cell = np.minimum(np.searchsorted(up_to, draws[:, 0], side="right"), np.flatnonzero(share)[-1])
        left = np.clip((draws[:, 0] - (up_to - share)[cell]) / share[cell], 0.0, 1.0)
        row, column = np.divmod(cell, columns)
        return (row + left) / rows, (column + draws[:, 1]) / columns
