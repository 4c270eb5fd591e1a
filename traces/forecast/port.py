"""The forecaster port: the setting of a forecast, the methods of a forecaster, and its result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ROUNDING = 1e-6
"""Part of an interval by which a sum of times may fall short of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What a forecaster is told before it sees anything.

    Attributes
    ----------
    series
        How many series are forecast, each from its own past alone.
    season
        Length of a season in intervals, at least 1.
    step
        Length of an interval; rates are per unit of it. At 1, a rate is a count per interval.
    weight
        Weight of the latest interval where a forecaster smooths with a fixed one, above 0 and at most 1.
    prior
        Rates that are expected before the first interval, shape (series,); None where nothing is known.
    """

    series: int
    season: int
    step: float = 1.0
    weight: float = 0.5
    prior: FloatArray | None = None


class PointForecaster(Protocol):
    """Forecasts rates from counts. Quantiles are not its business: see `traces.forecast.quantiles`.

    Attributes
    ----------
    seasonal
        Whether it counts the intervals, so that `update` is called once for each, and forecasts otherwise before it has
        seen a whole season.
    """

    seasonal: ClassVar[bool]

    def __init__(self, setting: Setting) -> None: ...

    def update(self, counts: FloatArray, duration: float) -> None:
        """Take in the counts of the interval that has just ended.

        Parameters
        ----------
        counts
            Shape (series,).
        duration
            Time in which they came, in units of `Setting.step`.
        """
        ...

    def predict(self, horizon: int) -> FloatArray:
        """Rates of the next intervals, shape (horizon, series), none of them negative."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """Rates of the next intervals.

    Attributes
    ----------
    mean
        Shape (horizon, series).
    levels
        Of the quantiles, in the order asked for.
    quantiles
        Shape (horizon, series, levels), never falling with the level.
    """

    mean: FloatArray
    levels: Sequence[float]
    quantiles: FloatArray
