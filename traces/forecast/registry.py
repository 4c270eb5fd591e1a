"""The forecasters by name: a new one is a class with `update` and `predict` and one line here."""

from dataclasses import dataclass

from simulator.errors import InputError
from simulator.validation import closest
from traces.forecast.points import Adaptive, Ewma, Last, Oracle, Seasonal, SeasonalNaive
from traces.forecast.port import FloatArray, PointForecaster, Setting
from traces.forecast.quantiles import Forecaster

WHOLE = 1e-9  # relative: rounding in a season over an interval


@dataclass(frozen=True, slots=True)
class ForecasterEntry:
    """One line of the registry. `make` is None for the oracle, which is made from the truth."""

    make: type[PointForecaster] | None
    summary: str


ORACLE = "oracle"

FORECASTERS: dict[str, ForecasterEntry] = {
    "last": ForecasterEntry(Last, "the last interval again"),
    "ewma": ForecasterEntry(Ewma, "exponentially weighted mean of the past intervals"),
    "seasonal-naive": ForecasterEntry(SeasonalNaive, "the same interval a season ago"),
    "seasonal": ForecasterEntry(Seasonal, "the profile of a season times the present level"),
    "adaptive": ForecasterEntry(Adaptive, "plain and seasonal levels mixed by their past errors: tunes itself"),
    ORACLE: ForecasterEntry(None, "what really comes: the bound of all forecasts, not a forecast"),
}


def refuse_unknown(name: str) -> None:
    """Refuse the name of a forecaster that does not exist.

    Raises
    ------
    InputError
        With what may have been meant.
    """
    if name not in FORECASTERS:
        raise InputError(f"there is no forecaster {name!r}; {closest(name, FORECASTERS)}")


def make_forecaster(name: str, setting: Setting, *, horizon: int = 1, truth: FloatArray | None = None) -> Forecaster:
    """Make a forecaster by its name.

    Parameters
    ----------
    truth
        For the oracle alone, and needed by it: the rates of all intervals, shape (intervals, series).

    Raises
    ------
    InputError
        If there is none of this name.
    """
    refuse_unknown(name)
    make = FORECASTERS[name].make
    if make is not None:
        return Forecaster(make(setting), setting, horizon=horizon)
    if truth is None:
        raise ValueError("the oracle needs the truth")
    return Forecaster(Oracle(setting, truth), setting, horizon=horizon, certain=True)


def season_intervals(name: str, season_s: float, interval_s: float) -> int:
    """How many intervals the season of a forecaster has; one if it knows no seasons.

    Raises
    ------
    InputError
        If it is no whole number of them, or there is no such forecaster.
    """
    refuse_unknown(name)
    make = FORECASTERS[name].make
    if make is None or not make.seasonal:
        return 1
    intervals = round(season_s / interval_s)
    if intervals < 1 or abs(intervals * interval_s - season_s) > WHOLE * season_s:
        raise InputError(
            f"forecaster {name}: the season of {season_s:g} s is no whole number of intervals of {interval_s:g} s: "
            "choose another one"
        )
    return intervals
