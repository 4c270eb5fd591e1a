"""What to do with a row that cannot be used: a module of its own, because the options of commands need no reader."""

from enum import StrEnum


class OnBadRow(StrEnum):
    """What to do with a row that cannot be used."""

    ERROR = "error"
    SKIP = "skip"
    QUARANTINE = "quarantine"
