"""Counts per interval, from a trace or from a table that has them already."""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from simulator.errors import InputError
from simulator.workload import Trace
from traces.forecast.port import FloatArray
from traces.io.lines import head

COLUMNS = ("service", "hour_utc", "requests")
HOUR_S = 3600.0
_HEAD_BYTES = 2**12


@dataclass(frozen=True, slots=True, eq=False)
class ServiceCounts:
    """Requests of a service in each of successive intervals, shape (intervals,)."""

    service: str
    counts: FloatArray


class RequestCounter:
    """Counts the requests of a trace by source and interval, chunk by chunk."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._counts: dict[str, FloatArray] = {}
        self._span_s = 0.0

    def look_at(self, trace: Trace) -> None:
        """Look at the next chunk of a trace."""
        place = (trace.arrival_s // self._interval_s).astype(np.int64)
        self._span_s = max(self._span_s, trace.span_s)
        for number, source in enumerate(trace.sources):
            more = np.bincount(place[trace.source == number]).astype(np.float64)
            counts = self._counts.get(source, np.zeros(0))
            longest = max(len(counts), len(more))
            self._counts[source] = _to_length(counts, longest) + _to_length(more, longest)

    def services(self) -> list[ServiceCounts]:
        """Counts of the whole intervals: the last one is left out if the trace ends within it."""
        intervals = int(self._span_s // self._interval_s)
        return [ServiceCounts(name, _to_length(counts, intervals)) for name, counts in self._counts.items()]


def _to_length(counts: FloatArray, length: int) -> FloatArray:
    return np.pad(counts[:length], (0, max(0, length - len(counts))))


def is_count_table(path: Path) -> bool:
    """Whether a file begins like a table of counts per hour (`COLUMNS` among its columns)."""
    try:
        first_line = head(path, _HEAD_BYTES).partition(b"\n")[0]
    except OSError:
        return False
    return set(COLUMNS) <= {name.strip() for name in first_line.decode(errors="replace").split(",")}


def read_count_table(path: Path) -> list[ServiceCounts]:
    """Read a table (CSV) of counts per hour, a row for each service and hour; further columns are left alone.

    Raises
    ------
    InputError
        If a row cannot be used, or the hours of a service do not follow one another.
    """
    counts: dict[str, list[float]] = {}
    last: dict[str, datetime] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                service, hour, requests = _parsed(row, where)
                if service in last and (hour - last[service]).total_seconds() != HOUR_S:
                    raise InputError(f"{where}: {service}: expected the hour after {last[service]}, found {hour}")
                last[service] = hour
                counts.setdefault(service, []).append(requests)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file in UTF-8: {error}") from None
    if not counts:
        raise InputError(f"{path}: expected at least one row of counts, found none")
    return [ServiceCounts(service, np.array(values)) for service, values in counts.items()]


def _parsed(row: dict[str, str | None], where: str) -> tuple[str, datetime, float]:
    service, hour, requests = (row.get(name) or "" for name in COLUMNS)
    try:
        number = float(requests)
        if not 0 <= number < np.inf:
            raise ValueError
    except ValueError:
        raise InputError(f"{where}: requests: expected a number from zero on, found {requests!r}") from None
    try:
        time = datetime.fromisoformat(hour)
        return service, time if time.tzinfo else time.replace(tzinfo=UTC), number
    except ValueError:
        raise InputError(f"{where}: hour_utc: expected a time like 2024-05-10T00:00:00Z, found {hour!r}") from None
