"""From a real trace to the profile that `traces.synthetic.generate` generates from."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from simulator.errors import InputError
from simulator.workload import Trace
from traces.statistics.figures import quantiles
from traces.statistics.totals import index_of_dispersion
from traces.synthetic.dispersion import model_dispersion
from traces.synthetic.profile import Profile, RateComponent, SourceProfile
from traces.synthetic.ratecurve import HOUR_S, RateCurve
from traces.synthetic.tokens import QUANTILE_LEVELS, TokenCounts, joint_ranks, spearman

_Floats = npt.NDArray[np.float64]

HOURS_OF_WEEK = 168
ALL_WINDOWS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
ALL_TIME_SCALES_S = (0.5, 3.0, 20.0, 120.0)
"""Those of `fit_profile`, which looks at more windows."""

SILENCE_S = 10.0
"""Gaps longer than this are silence, not chance: at the mean rates of the trace they would never occur."""

SILENCE_GAPS = 20.0
"""Nor is a gap of fewer mean gaps than this of the quietest hour silence."""

CURVE_FROM_H = 3
"""A trace of so many hours has a rate curve."""

WHOLE = 0.99
"""An hour counts as whole if the trace covers so much of it: the last request comes before its end."""


def dispersion_within_hours(arrival_s: _Floats, window_s: float, requests_per_h: Sequence[float]) -> float:
    """Variance over mean of the counts in windows within hours, about the rate curve: the mean over the hours.

    The index is linear in the rate, so that the mean over the hours is what the mean rate has.
    """
    curve = RateCurve(requests_per_h)
    windows = int(HOUR_S // window_s)
    edges = np.searchsorted(arrival_s, np.arange(len(requests_per_h) + 1) * HOUR_S)
    index_by_hour = []
    for hour, (first, last) in enumerate(itertools.pairwise(edges)):
        within_s = arrival_s[first:last] - hour * HOUR_S
        number = (within_s[within_s < windows * window_s] / window_s).astype(np.int64)
        counts = np.bincount(number, minlength=windows)[:windows]
        if not counts.any():
            continue
        share = curve.rate_per_s(hour * HOUR_S + (np.arange(windows) + 0.5) * window_s)
        about = share * (counts.sum() / share.sum()) if share.any() else counts.mean()
        index_by_hour.append(float(((counts - about) ** 2).sum() / counts.sum()))
    return float(np.mean(index_by_hour))


def fit_profile(trace: Trace, *, name: str, attribution: str) -> Profile:
    """Measure all sources of a trace, fit their bursts, and take the rate curve of a trace of some hours.

    The curve has whole hours; of a trace of a day or longer whole days, and of a week or longer whole weeks, so that
    what repeats is the same time of the day and of the week. A shorter trace than `CURVE_FROM_H` has a mean rate alone.

    Raises
    ------
    InputError
        If a source has too few requests for a profile.
    """
    begin_s = float(trace.arrival_s[0])
    hours = _whole_hours(trace.span_s - begin_s)
    sources = []
    for number in np.unique(trace.source).tolist():
        mine = trace.source == number
        if np.count_nonzero(mine) < 100:
            raise InputError(f"source {trace.sources[number]}: expected at least 100 requests, found {mine.sum()}")
        part = trace.rows(np.flatnonzero(mine))
        if part.span_s == part.arrival_s[0]:
            raise InputError(f"source {trace.sources[number]}: all of its requests have the same time")
        sources.append(_fit_part(part, trace.sources[number], begin_s, hours))
    start = None if trace.start is None else trace.start + timedelta(seconds=begin_s)
    return Profile(
        name=name,
        attribution=attribution,
        quantile_levels=QUANTILE_LEVELS,
        sources=tuple(sources),
        curve_start=start if hours else None,
    )


def _whole_hours(span_s: float) -> int:
    """How many hours the rate curve of a trace has."""
    hours = math.floor(span_s / HOUR_S + 1 - WHOLE)
    if hours < CURVE_FROM_H:
        return 0
    unit = next(unit for unit in (HOURS_OF_WEEK, 24, 1) if hours >= unit)
    return hours // unit * unit


def _fit_part(part: Trace, name: str, begin_s: float, hours: int) -> SourceProfile:
    """One source; without a curve its time goes from its first request to its last, with one from the trace's."""
    arrival_s = part.arrival_s - (begin_s if hours else part.arrival_s[0])
    requests_per_h: tuple[float, ...] = ()
    if hours:
        arrival_s = arrival_s[arrival_s < hours * HOUR_S]
        requests_per_h = tuple(np.bincount((arrival_s / HOUR_S).astype(np.int64), minlength=hours)[:hours].tolist())
    if len(arrival_s) < 2:
        raise InputError(f"source {name}: expected requests in the first {hours} hours, found {len(arrival_s)}")
    span_s = hours * HOUR_S or float(arrival_s[-1])
    gap_s = np.diff(arrival_s)
    measured = {
        window_s: dispersion_within_hours(arrival_s, window_s, requests_per_h)
        if hours
        else index_of_dispersion(arrival_s, window_s, span_s)
        for window_s in ALL_WINDOWS_S
        if hours or span_s > 10 * window_s
    }
    rate_per_s = len(arrival_s) / span_s
    slowest_per_s = min((n for n in requests_per_h if n), default=rate_per_s * HOUR_S) / HOUR_S
    silence = fit_silence(gap_s, span_s, max(SILENCE_S, SILENCE_GAPS / slowest_per_s))
    fitted = fit_bursts(rate_per_s, min(span_s, HOUR_S), measured, silence, ALL_TIME_SCALES_S, followers=True)
    inputs, outputs = TokenCounts(part.input_tokens), TokenCounts(part.output_tokens)
    return SourceProfile(
        name=name,
        rate_per_s=rate_per_s,
        dispersion=measured,
        gap_cv=float(gap_s.std() / gap_s.mean()),
        spearman=spearman(inputs, outputs),
        input_tokens=tuple(quantiles(inputs.counts, QUANTILE_LEVELS).tolist()),
        output_tokens=tuple(quantiles(outputs.counts, QUANTILE_LEVELS).tolist()),
        modulation=fitted.modulation,
        requests_per_h=requests_per_h,
        follow_share=fitted.follow_share,
        follow_delay_s=fitted.follow_delay_s,
        joint=joint_ranks(inputs, outputs),
    )


def fit_silence(gap_s: _Floats, span_s: float, threshold_s: float = SILENCE_S) -> tuple[RateComponent, ...]:
    """An on-off factor from the long gaps, none if there are too few.

    Exponential silence of mean m is seen above the threshold only, where its excess has the same mean m and the share
    exp(-threshold / m) of its number.
    """
    long_s = gap_s[gap_s > threshold_s]
    if len(long_s) < 10:
        return ()
    off_s = float(long_s.mean()) - threshold_s
    on_s = span_s / (len(long_s) * math.exp(threshold_s / off_s)) - off_s
    if on_s <= 0:
        return ()
    on_share = on_s / (on_s + off_s)
    return (RateComponent(time_scale_s=1 / (1 / on_s + 1 / off_s), squared_cv=1 / on_share - 1, on_share=on_share),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bursts:
    """What `SourceProfile` has of the same names."""

    modulation: tuple[RateComponent, ...]
    follow_share: float
    follow_delay_s: float


def fit_bursts(
    rate_per_s: float,
    span_s: float,
    measured: Mapping[float, float],
    silence: tuple[RateComponent, ...],
    time_scales_s: Sequence[float],
    *,
    followers: bool,
) -> _Bursts:
    """Log-normal factors at some time scales, and requests that follow others, nearest to the measured dispersion.

    Least squares of the logarithms over all windows; what has no effect is left out.
    """

    def bursts(unknown: _Floats) -> _Bursts:
        pairs = zip(time_scales_s, unknown.tolist(), strict=False)
        factors = *(RateComponent(time_scale_s=t, squared_cv=v) for t, v in pairs if v > 1e-4), *silence
        share, log_delay = unknown[len(time_scales_s) :].tolist() if followers else (0.0, 0.0)
        few = share < MIN_FOLLOW_SHARE
        return _Bursts(
            modulation=factors,
            follow_share=0.0 if few else share,
            follow_delay_s=0.0 if few else math.exp(log_delay),
        )

    def misfit(unknown: _Floats) -> _Floats:
        fitted = bursts(unknown)
        model = [
            model_dispersion(
                rate_per_s,
                fitted.modulation,
                window_s,
                span_s,
                follow_share=fitted.follow_share,
                follow_delay_s=fitted.follow_delay_s,
            )
            for window_s in measured
        ]
        wanted: _Floats = np.log(np.maximum(model, 1e-9)) - np.log(np.maximum(list(measured.values()), 1e-9))
        return wanted

    scales = len(time_scales_s)
    first, low, high = [0.1] * scales, [0.0] * scales, [np.inf] * scales
    if followers:
        first, low, high = [*first, 0.1, math.log(0.003)], [*low, 0.0, math.log(1e-5)], [*high, 0.9, math.log(0.05)]
    fit = least_squares(misfit, first, bounds=(low, high))
    return bursts(fit.x)


MIN_FOLLOW_SHARE = 0.002
"""Fewer followers than this are none."""
