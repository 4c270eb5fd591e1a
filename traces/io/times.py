"""Times as files state them: text in ISO 8601, or numbers in some unit since 1970 or since the file's own zero."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

NS_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

# What Arrow's parser takes, so that both ways of reading agree.
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[ T](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"-?\d+", re.ASCII)
NS_LIMIT = 2**62
"""Beyond this, years 1823 to 2116 and 146 years since a file's zero, differences would not be whole nanoseconds."""

US_LIMIT = NS_LIMIT / 1000 - 1
MAX_RELATIVE_S = NS_LIMIT / 10**9

EXPECTED_ISO = "a time such as 2023-11-16 18:15:46.680590"
EXPECTED_ANY = f"{EXPECTED_ISO}, or a number"
_YEAR_1973_S = 1e8
"""Numbers of seconds from here on are times since 1970: a trace of three years is less likely."""


class TimeKind(StrEnum):
    """How the times of a file are written."""

    TEXT = "text"
    ZONED_TEXT = "zoned text"
    EPOCH_INTEGER = "integer since 1970"
    EPOCH_NUMBER = "number since 1970"
    RELATIVE = "relative"


@dataclass(frozen=True, slots=True)
class TimeForm:
    """How the times of one file are written. `unit` counts for numbers only."""

    kind: TimeKind
    unit: str = "s"

    @property
    def expected(self) -> str:
        """For messages."""
        if self.kind is TimeKind.TEXT:
            return EXPECTED_ISO
        if self.kind is TimeKind.ZONED_TEXT:
            return f"{EXPECTED_ISO}+00:00"
        if self.kind is TimeKind.RELATIVE:
            return f"a number from 0 to {MAX_RELATIVE_S * 10**9 / NS_PER_UNIT[self.unit]:.2g} [{self.unit}]"
        return f"a time since 1970 [{self.unit}]"

    def parse(self, text: str) -> int | float | None:
        """Nanoseconds since 1970, or seconds since the file's zero where times are relative; None if it is no time."""
        if self.kind in (TimeKind.TEXT, TimeKind.ZONED_TEXT):
            return parse_iso(text, zoned=self.kind is TimeKind.ZONED_TEXT)
        value = parse_number(text)
        if value is None or value < 0:
            return None
        if self.kind is TimeKind.RELATIVE:
            seconds = value / (10**9 / NS_PER_UNIT[self.unit]) + 0.0
            return seconds if seconds < MAX_RELATIVE_S else None
        if self.kind is TimeKind.EPOCH_INTEGER and value < 2 * NS_LIMIT and _WHOLE.fullmatch(stripped(text)):
            time_ns = int(text) * NS_PER_UNIT[self.unit]
            return time_ns if time_ns < NS_LIMIT else None
        return since_1970_ns(value, self.unit)


def times_of_numbers(value: npt.NDArray[Any], form: TimeForm) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Numbers of a column as `TimeForm.parse` reads them one by one, and which of them are times at all."""
    factor = NS_PER_UNIT[form.unit]
    if form.kind is TimeKind.RELATIVE:
        seconds = value / (10**9 / factor) + 0.0
        return seconds, (value >= 0) & (seconds < MAX_RELATIVE_S)
    if np.issubdtype(value.dtype, np.integer):
        good = (value >= 0) & (value < -(-NS_LIMIT // factor))
        return np.where(good, value, 0).astype(np.int64) * factor, good
    time_us = np.where((value >= 0) & (value < NS_LIMIT), value, np.nan) * (factor / 1000)
    good = time_us < US_LIMIT
    return np.rint(np.where(good, time_us, 0)).astype(np.int64) * 1000, good


def form_of(text: str, unit: str | None) -> TimeForm | None:
    """How a file writes its times, from one of them; None if it is no time at all.

    Parameters
    ----------
    unit
        What the format or the column's name says of numbers.
    """
    for zoned, kind in ((False, TimeKind.TEXT), (True, TimeKind.ZONED_TEXT)):
        if parse_iso(text, zoned=zoned) is not None:
            return TimeForm(kind)
    value = parse_number(text)
    if value is None or not math.isfinite(value):
        return None
    form = _form_of_number(text, value, unit)
    return form if form.parse(text) is not None else None


def _form_of_number(text: str, value: float, unit: str | None) -> TimeForm:
    whole = _WHOLE.fullmatch(stripped(text)) is not None
    since_1970 = TimeKind.EPOCH_INTEGER if whole else TimeKind.EPOCH_NUMBER
    for tried in (unit,) if unit else ("ns", "us", "ms", "s"):
        if value >= _YEAR_1973_S * 10**9 / NS_PER_UNIT[tried]:
            return TimeForm(since_1970, tried)
    return TimeForm(TimeKind.RELATIVE, unit or "s")


def parse_iso(text: str, *, zoned: bool) -> int | None:
    """Nanoseconds since 1970 of a time that states a zone, or of one that does not."""
    match = _ISO.fullmatch(text)
    if match is None or (match["zone"] is not None) is not zoned:
        return None
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        days = date.fromisoformat(match["day"]).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    if zoned and match["zone"] != "Z":
        zone = match["zone"].replace(":", "")
        zone_hour, zone_minute = int(zone[1:3]), int(zone[3:] or 0)
        if zone_hour > 23 or zone_minute > 59:
            return None
        seconds -= (1 if zone[0] == "+" else -1) * (zone_hour * 60 + zone_minute) * 60
    time_ns = seconds * 10**9 + int((match["fraction"] or "").ljust(9, "0"))
    return time_ns if abs(time_ns) < NS_LIMIT else None


def parse_number(text: str) -> float | None:
    """A number in decimal notation, with blanks around it if any; None if it is none."""
    text = stripped(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def stripped(text: str) -> str:
    """Without the blanks around it that Arrow leaves out too."""
    return text.strip(" \t")


def since_1970_ns(value: float, unit: str) -> int | None:
    """Nanoseconds from a number in a unit, rounded to microseconds: float64 holds no more of a time since 1970."""
    time_us = value * (NS_PER_UNIT[unit] / 1000)
    return round(time_us) * 1000 if abs(time_us) < US_LIMIT else None


def written(time: int | float, *, zoned: bool) -> str:
    """A time as messages show it: nanoseconds since 1970 as a date, seconds as a number."""
    if isinstance(time, float):
        return f"{time:.9g} s"
    seconds, fraction = divmod(time, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{moment}.{fraction:09d}{'+00:00' if zoned else ''}"
