"""Options as the user writes them, parsed once for every command."""

import math
import re
from pathlib import Path

from simulator.errors import InputError
from traces.formats.registry import OnBadRow, Reading
from traces.io.columns import EXTRAS, ROLES
from traces.source import TraceFiles

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[a-z]*)")


def parse_duration_s(text: str, option: str) -> float:
    """`90s`, `5m`, `1h`, `24h`, `1d`; a bare number is seconds.

    Raises
    ------
    InputError
        If it is no duration above zero.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    unit = (match["unit"] or "s") if match else ""
    if match is None or unit not in _SECONDS or not 0 < float(match["number"]) < math.inf:
        raise InputError(f"{option}: {text!r} is no duration above zero; expected for instance 30s, 5m, 1h or 1d")
    return float(match["number"]) * _SECONDS[unit]


def parse_factors(text: str) -> list[float]:
    """Comma-separated factors above zero, in the order given.

    Raises
    ------
    InputError
        Naming the first that is none.
    """
    factors = []
    for item in text.split(","):
        try:
            factor = float(item)
        except ValueError:
            factor = math.nan
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"--factors: {item.strip()!r} is no factor above zero; expected for instance 1.0,1.1,1.5")
        factors.append(factor)
    return factors


def parse_reading(
    trace_format: str | None = None,
    columns: list[str] | None = None,
    on_bad_row: OnBadRow = OnBadRow.ERROR,
    quarantine: Path | None = None,
    strict: bool = False,
) -> Reading:
    """The options that say how trace files are read; `columns` are `HOLDS=NAME`, as in `arrival_s=When`.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    known = (*ROLES, *EXTRAS)
    named: dict[str, str] = {}
    for item in columns or ():
        role, separator, name = item.partition("=")
        if not (separator and name and role in known):
            raise InputError(f"--map: expected HOLDS=COLUMN, HOLDS one of {', '.join(known)}; found {item!r}")
        if role in named:
            raise InputError(f"--map: {role} is given twice")
        named[role] = name
    if quarantine is not None and on_bad_row is not OnBadRow.QUARANTINE:
        raise InputError("--quarantine needs --on-bad-row quarantine")
    return Reading(
        trace_format=trace_format,
        columns=named,
        on_bad_row=on_bad_row,
        strict=strict,
        quarantine=quarantine or Path(),
    )


def trace_files(arguments: list[str], reading: Reading) -> TraceFiles:
    """Trace files, each given as `PATH` or as `SOURCE=PATH`."""
    files: list[tuple[Path, str | None]] = []
    for argument in arguments:
        source, separator, path = argument.partition("=")
        if not separator or "/" in source or Path(argument).exists():
            source, path = "", argument
        files.append((Path(path), source or None))
    return TraceFiles(files, reading)


def parse_numbers(text: str, option: str, *, least: float = 0.0) -> list[float]:
    """Comma-separated numbers from `least` on, rising and each once.

    Raises
    ------
    InputError
        Naming the first that is none.
    """
    numbers = set()
    for item in text.split(","):
        try:
            number = float(item)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= least):
            raise InputError(f"{option}: {item.strip()!r} is no number from {least:g} on; expected for instance 1,2.5")
        numbers.add(number)
    return sorted(numbers)
