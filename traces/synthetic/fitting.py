"""From a real trace to the profile that `traces.synthetic.generate` generates from.

`python -m traces.synthetic.fitting azure-2023 CONV.csv CODE.csv` prints `traces/profiles/azure-2023.toml`, and
`python -m traces.synthetic.fitting azure-2024 CONV.csv CODE.csv azure2024_hourly_requests.csv` the profile of 2024.
"""

import csv
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import read_trace
from traces.statistics.describe import index_of_dispersion
from traces.synthetic.generate import model_dispersion
from traces.synthetic.profile import Profile, RateComponent, SourceProfile
from traces.synthetic.ratecurve import HOUR_S, RateCurve

_Floats = npt.NDArray[np.float64]

AZURE_2023 = "azure-2023"
AZURE_2023_ATTRIBUTION = (
    "Azure LLM inference trace 2023, Microsoft, CC-BY-4.0; Patel et al., ISCA 2024; "
    "statistics computed for this project"
)
AZURE_2024 = "azure-2024"
AZURE_2024_ATTRIBUTION = (
    "Rate curves of 2024; bursts and tokens assumed from azure-2023. "
    "Curves: Azure LLM inference trace 2024, Microsoft, CC-BY-4.0; Stojkovic et al., DynamoLLM, HPCA 2025; counts "
    "by the hour, of the exact hours of conv from diegohommer/tcc-offloading-ai-edge (MIT, Copyright (c) 2026 Diego "
    "Hommerding Amorim), the others digitised for this project from the published plots. Bursts and tokens: Azure LLM "
    "inference trace 2023, Microsoft, CC-BY-4.0; Patel et al., ISCA 2024; statistics computed for this project"
)
AZURE_2024_ASSUMPTIONS = (
    "bursts are assumed from azure-2023: at the mean rate, within an hour, the index of dispersion of each source is "
    "the one of 2023, as if there were more users, each as bursty as then",
    "tokens are assumed from azure-2023: quantiles, and frequencies of the ranks of input and output together",
    "hours 24-47 of conv and 10-167 of code are digitised (error 1.2 %, at most 5 %), the others are exact; the days "
    "of conv are 12-18 May 2024, of which 17 and 18 May stand before the others, where code has 10 and 11 May",
)
AZURE_2024_START = datetime(2024, 5, 10, tzinfo=UTC)
HOURS_OF_WEEK = 168

WINDOWS_S = (1.0, 10.0, 60.0)
ALL_WINDOWS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
_PERCENT = tuple(round(0.01 * k, 2) for k in range(1, 100))
QUANTILE_LEVELS = (0.0, 0.001, 0.005, *_PERCENT, 0.9925, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 1.0)
"""Fine at the upper end, where the mean and more so the variance of the tokens are made."""

TIME_SCALES_S = (0.5, 3.0, 120.0)
"""Time scales of the log-normal factors. The longest gives an hour some thirty levels: with the 475 s that fit the
conversation trace best, one hour of the model has eight and its statistics scatter by a factor of two."""

ALL_TIME_SCALES_S = (0.5, 3.0, 20.0, 120.0)
"""Those of `fit_profile`, which looks at more windows."""

SILENCE_S = 10.0
"""Gaps longer than this are silence, not chance: at the mean rates of the trace they would never occur."""

SILENCE_GAPS = 20.0
"""Nor is a gap of fewer mean gaps than this of the quietest hour silence."""

RANKS = 10
"""Rows and columns of the table of joint ranks: with ten the mean of input times output is off by 1 %."""

PART_ROWS = 2**18
"""Requests that are looked at together."""

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
    found = []
    for hour, (first, last) in enumerate(itertools.pairwise(edges)):
        within_s = arrival_s[first:last] - hour * HOUR_S
        number = (within_s[within_s < windows * window_s] / window_s).astype(np.int64)
        counts = np.bincount(number, minlength=windows)[:windows]
        if not counts.any():
            continue
        share = curve.rate_per_s(hour * HOUR_S + (np.arange(windows) + 0.5) * window_s)
        about = share * (counts.sum() / share.sum()) if share.any() else counts.mean()
        found.append(float(((counts - about) ** 2).sum() / counts.sum()))
    return float(np.mean(found))


def fit_source(trace: Trace, source: int) -> SourceProfile:
    """Measure one source of a trace and fit the factors of its arrival rate, as the profile azure-2023 was made."""
    mine = trace.source == source
    arrival_s = trace.arrival_s[mine] - trace.arrival_s[mine][0]
    gap_s = np.diff(arrival_s)
    span_s = float(arrival_s[-1])
    measured = {window_s: index_of_dispersion(arrival_s, window_s, span_s) for window_s in WINDOWS_S}
    rate_per_s = len(arrival_s) / span_s
    tokens = trace.input_tokens[mine], trace.output_tokens[mine]
    fitted = _fit_bursts(rate_per_s, span_s, measured, _fit_silence(gap_s, span_s), TIME_SCALES_S, followers=False)
    return SourceProfile(
        name=trace.sources[source],
        rate_per_s=rate_per_s,
        dispersion=measured,
        gap_cv=float(gap_s.std() / gap_s.mean()),
        spearman=float(spearmanr(*tokens).statistic),
        input_tokens=tuple(np.quantile(tokens[0], QUANTILE_LEVELS).tolist()),
        output_tokens=tuple(np.quantile(tokens[1], QUANTILE_LEVELS).tolist()),
        modulation=fitted.modulation,
    )


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
    silence = _fit_silence(gap_s, span_s, max(SILENCE_S, SILENCE_GAPS / slowest_per_s))
    fitted = _fit_bursts(rate_per_s, min(span_s, HOUR_S), measured, silence, ALL_TIME_SCALES_S, followers=True)
    inputs, outputs = _Counted(part.input_tokens), _Counted(part.output_tokens)
    return SourceProfile(
        name=name,
        rate_per_s=rate_per_s,
        dispersion=measured,
        gap_cv=float(gap_s.std() / gap_s.mean()),
        spearman=_spearman(inputs, outputs),
        input_tokens=inputs.quantiles(QUANTILE_LEVELS),
        output_tokens=outputs.quantiles(QUANTILE_LEVELS),
        modulation=fitted.modulation,
        requests_per_h=requests_per_h,
        follow_share=fitted.follow_share,
        follow_delay_s=fitted.follow_delay_s,
        joint=tuple(tuple(row) for row in _joint(inputs, outputs, RANKS).tolist()),
    )


def joint_ranks(
    input_tokens: npt.NDArray[np.int32], output_tokens: npt.NDArray[np.int32], ranks: int = RANKS
) -> tuple[tuple[float, ...], ...]:
    """Requests by the rank of their input (rows) and of their output (columns), `ranks` of equal shares each.

    Requests of equal tokens share their ranks: each counts in every cell by as much of their ranks as lies in it.
    """
    table = _joint(_Counted(input_tokens), _Counted(output_tokens), ranks)
    return tuple(tuple(row) for row in table.tolist())


class _Counted:
    """Tokens of many requests by their values, of which there are few: nothing here has to be sorted."""

    def __init__(self, tokens: npt.NDArray[np.int32]) -> None:
        counts = np.bincount(tokens)
        self.tokens = tokens
        self.values = np.flatnonzero(counts)
        self.up_to = np.cumsum(counts[self.values])
        self.below = self.up_to - counts[self.values]
        self._number = np.cumsum(counts > 0, dtype=np.int32) - 1

    def parts(self) -> Iterator[npt.NDArray[np.int32]]:
        """Indices into `values` of successive requests."""
        for first in range(0, len(self.tokens), PART_ROWS):
            yield self._number[self.tokens[first : first + PART_ROWS]]

    def quantiles(self, levels: Sequence[float]) -> tuple[float, ...]:
        """As by `numpy.quantile`."""
        place = np.array(levels) * (len(self.tokens) - 1)
        low, high = (
            self.values[np.searchsorted(self.up_to, whole, side="right")]
            for whole in (np.floor(place), np.minimum(np.floor(place) + 1, len(self.tokens) - 1))
        )
        found: list[float] = (low + (high - low) * (place - np.floor(place))).tolist()
        return tuple(found)

    def middle_ranks(self) -> _Floats:
        """Mean rank of each value, about the mean of all."""
        middle: _Floats = (self.below + self.up_to - len(self.tokens)) / 2
        return middle

    def shares(self, ranks: int) -> _Floats:
        """Shape (values, ranks): how much of the requests of each value is in each rank."""
        total = len(self.tokens)
        first, last = self.below[:, None] / total, self.up_to[:, None] / total
        edges = np.linspace(0, 1, ranks + 1)
        shares: _Floats = np.clip(np.minimum(last, edges[1:]) - np.maximum(first, edges[:-1]), 0, None) / (last - first)
        return shares


def _joint(inputs: _Counted, outputs: _Counted, ranks: int) -> _Floats:
    rows, columns = inputs.shares(ranks), outputs.shares(ranks)
    table = np.zeros((ranks, ranks))
    for i, o in zip(inputs.parts(), outputs.parts(), strict=True):
        table += rows[i].T @ columns[o]
    return table


def _spearman(inputs: _Counted, outputs: _Counted) -> float:
    """Rank correlation, zero if all values are equal."""
    ranks = inputs.middle_ranks(), outputs.middle_ranks()
    squares = [float(((c.up_to - c.below) * r**2).sum()) for c, r in zip((inputs, outputs), ranks, strict=True)]
    if not all(squares):
        return 0.0
    product = sum(float(ranks[0][i] @ ranks[1][o]) for i, o in zip(inputs.parts(), outputs.parts(), strict=True))
    return product / math.sqrt(squares[0] * squares[1])


def _fit_silence(gap_s: _Floats, span_s: float, threshold_s: float = SILENCE_S) -> tuple[RateComponent, ...]:
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


def _fit_bursts(
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
        found = bursts(unknown)
        model = [
            model_dispersion(
                rate_per_s,
                found.modulation,
                window_s,
                span_s,
                follow_share=found.follow_share,
                follow_delay_s=found.follow_delay_s,
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


def profile_toml(profile: Profile) -> str:
    """The profile as a `tokenfleet-profile/1` file: four significant digits, one decimal in token quantiles."""
    lines = [
        'format = "tokenfleet-profile/1"',
        f"name = {_text(profile.name)}",
        f"attribution = {_text(profile.attribution)}",
    ]
    if profile.assumptions:
        lines += ["assumptions = [", *(f"  {_text(sentence)}," for sentence in profile.assumptions), "]"]
    if profile.curve_start is not None:
        lines.append(f"curve_start = {profile.curve_start.isoformat()}")
    lines.append(_array("quantile_levels", profile.quantile_levels))
    for source in profile.sources:
        lines += ["\n[[sources]]", f"name = {_text(source.name)}", *_source_lines(source, profile)]
    return "\n".join(lines) + "\n"


def _source_lines(source: SourceProfile, profile: Profile) -> list[str]:
    measured = [f"rate_per_s = {source.rate_per_s:.4g}"]
    if source.gap_cv is not None:
        measured.append(f"gap_cv = {source.gap_cv:.4g}")
    fitted = []
    if source.follow_share:
        fitted = [f"follow_share = {source.follow_share:.4g}", f"follow_delay_s = {source.follow_delay_s:.4g}"]
    curve = []
    if source.requests_per_h:
        curve = ["# 24 hours a line", _array("requests_per_h", source.requests_per_h, per_line=24)]
    joint = []
    if source.joint:
        rows = ("  [" + ", ".join(f"{round(value, 1):g}" for value in row) + "]," for row in source.joint)
        joint = ["# requests by the rank of their input (rows) and of their output (columns)", "joint = [", *rows, "]"]
    return [
        "# measured, or assumed as stated above" if profile.assumptions else "# measured",
        *measured,
        f"spearman = {source.spearman:.4g}",
        "dispersion = [",
        *(f"  {{ window_s = {w:g}, index = {index:.4g} }}," for w, index in source.dispersion.items()),
        "]",
        *curve,
        _array("input_tokens", source.input_tokens),
        _array("output_tokens", source.output_tokens),
        *joint,
        "# fitted to rate, dispersion and long gaps by traces/synthetic/fitting.py",
        *fitted,
        "modulation = [",
        *(f"  {_component(component)}," for component in source.modulation),
        "]",
    ]


def _text(value: str) -> str:
    """A TOML string: of what JSON escapes TOML knows all."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _component(component: RateComponent) -> str:
    fields = {name: getattr(component, name) for name in ("time_scale_s", "squared_cv", "on_share")}
    return "{ " + ", ".join(f"{name} = {value:.4g}" for name, value in fields.items()) + " }"


def _array(name: str, values: tuple[float, ...], per_line: int = 15) -> str:
    texts = [f"{round(value, 4 if value < 1 else 1):.10g}" for value in values]
    rows = [", ".join(texts[k : k + per_line]) for k in range(0, len(texts), per_line)]
    return f"{name} = [\n" + "".join(f"  {row},\n" for row in rows) + "]"


def azure_2024(conv: Path, code: Path, counts: Path) -> Profile:
    """The profile of 2024: its own rate curves, and the bursts and tokens of 2023."""
    fitted = fit_profile(read_trace(conv).trace, name=AZURE_2024, attribution=AZURE_2024_ATTRIBUTION)
    other = fit_profile(read_trace(code).trace, name=AZURE_2024, attribution=AZURE_2024_ATTRIBUTION)
    sources = []
    for source in (*fitted.sources, *other.sources):
        requests_per_h = _week_from_friday(counts, source.name)
        rate_per_s = sum(requests_per_h) / HOURS_OF_WEEK / HOUR_S
        # No silence: with the users of 2024 there is always someone.
        bursts = _fit_bursts(rate_per_s, HOUR_S, source.dispersion, (), ALL_TIME_SCALES_S, followers=True)
        sources.append(
            replace(
                source,
                rate_per_s=rate_per_s,
                gap_cv=None,
                requests_per_h=requests_per_h,
                modulation=bursts.modulation,
                follow_share=bursts.follow_share,
                follow_delay_s=bursts.follow_delay_s,
            )
        )
    return replace(fitted, sources=tuple(sources), assumptions=AZURE_2024_ASSUMPTIONS, curve_start=AZURE_2024_START)


def _week_from_friday(counts: Path, service: str) -> tuple[float, ...]:
    """Counts of one service by the hour of the week, which begins with the Friday that `AZURE_2024_START` is."""
    with counts.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["service"] == service]
    hours = [(datetime.fromisoformat(row["hour_utc"]) - AZURE_2024_START) // timedelta(hours=1) for row in rows]
    by_hour = {hour % HOURS_OF_WEEK: float(row["requests"]) for hour, row in zip(hours, rows, strict=True)}
    return tuple(by_hour[hour] for hour in range(HOURS_OF_WEEK))


def main(arguments: list[str]) -> None:
    """Print a profile of the package from the data that it was made of."""
    name, *paths = arguments
    if name == AZURE_2024:
        conv, code, counts = map(Path, paths)
        profile = azure_2024(conv, code, counts)
    else:
        profile = Profile(
            name=AZURE_2023,
            attribution=AZURE_2023_ATTRIBUTION,
            quantile_levels=QUANTILE_LEVELS,
            sources=tuple(fit_source(read_trace(Path(path)).trace, 0) for path in paths),
        )
    sys.stdout.write(profile_toml(profile))


if __name__ == "__main__":
    main(sys.argv[1:])
