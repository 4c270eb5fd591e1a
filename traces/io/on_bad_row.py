"""What the options of commands may say of reading: a module of its own, because they need no reader."""

from enum import StrEnum


class OnBadRow(StrEnum):
    """What to do with a row that cannot be used."""

    ERROR = "error"
    SKIP = "skip"
    QUARANTINE = "quarantine"


class TimeUnit(StrEnum):
    """Unit of times that are numbers."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
