"""What studies share when they show their results: means over seeds with confidence intervals, tables, curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.show.parts import DASH, Line, Table
from simulator.rng import stream

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over seeds and the bounds of its bootstrap confidence interval (None with fewer than two seeds)."""

    mean: float
    low: float | None
    high: float | None

    def text(self, digits: int = 2, factor: float = 1.0) -> str:
        """`12.3 ±0.4`, half of the interval's width; without it where there is none or it rounds to nothing."""
        mean = f"{self.mean * factor:,.{digits}f}"
        if self.low is None or self.high is None:
            return mean
        half = f"{(self.high - self.low) / 2 * factor:,.{digits}f}"
        return f"{mean} ±{half}" if float(half.replace(",", "")) else mean


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and 95 % percentile bootstrap interval of the mean over seeds (Efron and Tibshirani, 1993); None of nothing.

    The same values give the same interval: the resamples have a stream of their own.
    """
    array = np.asarray([value for value in values if value is not None and not np.isnan(value)], dtype=np.float64)
    if not len(array):
        return None
    if len(array) == 1:
        return Estimate(float(array[0]), None, None)
    drawn = stream(0, f"bootstrap-{len(array)}").integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.quantile(array[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(array.mean()), float(low), float(high))


def cell(frame: pd.DataFrame, measure: str, digits: int = 2, factor: float = 1.0) -> str:
    """The estimate of a measure over the rows, as text."""
    found = estimate(frame[measure].tolist())
    return DASH if found is None else found.text(digits, factor)


def mean_of(frame: pd.DataFrame, measure: str) -> float | None:
    """Mean over the rows, None if there are none."""
    found = estimate(frame[measure].tolist())
    return None if found is None else found.mean


def rows_where(frame: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """The rows that have these values; None stands for null."""
    kept = np.ones(len(frame), dtype=bool)
    for name, value in columns.items():
        kept &= (frame[name].isna() if value is None else frame[name] == value).to_numpy()
    return frame[kept]


def policies_of(frame: pd.DataFrame) -> list[str]:
    """In the order in which they come."""
    return list(dict.fromkeys(frame["policy"].dropna()))


def values_of(frame: pd.DataFrame, column: str) -> list[float]:
    """The values that a column takes, rising."""
    return sorted(frame[column].dropna().unique().tolist())


def curve(
    frame: pd.DataFrame,
    name: str,
    x: str,
    y: str,
    *,
    group: str | None = None,
    factor: float = 1.0,
    dashed: bool = False,
) -> Line:
    """Mean of `y` over the seeds for each value of `x`, with its confidence band."""
    xs = values_of(frame, x)
    found = [estimate(frame[frame[x] == value][y].tolist()) for value in xs]

    def column(part: Callable[[Estimate], float | None]) -> list[float | None]:
        values = [None if item is None else part(item) for item in found]
        return [None if value is None else value * factor for value in values]

    lows = column(lambda item: item.mean if item.low is None else item.low)
    highs = column(lambda item: item.mean if item.high is None else item.high)
    banded = any(item is not None and item.low is not None for item in found)
    return Line(
        name=name,
        x=xs,
        y=column(lambda item: item.mean),
        low=lows if banded else None,
        high=highs if banded else None,
        group=group or name,
        dashed=dashed,
    )


def seeds_note(frame: pd.DataFrame) -> str:
    """What the numbers of the tables are."""
    seeds = frame["seed"].nunique()
    return "one seed" if seeds == 1 else f"mean of {seeds} seeds ± half of the 95 % bootstrap confidence interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A published claim beside what we find; `holds` is yes, no, in part, or cannot be judged."""

    paper: str
    published: str
    ours: str
    holds: str
    why: str = ""


def claims_table(claims: Sequence[Claim]) -> Table:
    """The claims of arXiv 2604.07472 that a study bears on."""
    return Table(
        title="What the paper says, and what we find",
        columns=("claim of arXiv 2604.07472", "published", "here", "holds here"),
        rows=[(c.paper, c.published, c.ours, c.holds + (f": {c.why}" if c.why else "")) for c in claims],
        labels=4,
        note="The paper's parameters and code are not public; ours are this project's base problem.",
    )


def verdict(holds: bool | None) -> str:
    """As a claim says it."""
    return "cannot be judged" if holds is None else "yes" if holds else "no"


def options_of(marker: Mapping[str, object]) -> Mapping[str, object]:
    """The options of a sweep's marker."""
    options = marker["options"]
    assert isinstance(options, dict)
    return options
