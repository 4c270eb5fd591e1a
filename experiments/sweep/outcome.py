"""What a task gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Rows of the schema, and seconds of this machine by name (columns of `timing.parquet`): no part of the result."""

    rows: Sequence[Mapping[str, Any]]
    machine: Mapping[str, float] = field(default_factory=dict)


Task = Callable[[Mapping[str, Any]], Outcome]
