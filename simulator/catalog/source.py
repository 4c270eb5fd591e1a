"""Where a value comes from, and how far it can be trusted."""

from dataclasses import dataclass
from enum import StrEnum


class SourceKind(StrEnum):
    """How far a value can be trusted."""

    DATASHEET = "datasheet"
    MODEL_CARD = "model card"
    MEASURED = "measured"
    COMPOSED = "composed"
    FITTED = "fitted"
    ASSUMED = "assumed"
    DERIVED = "derived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a value comes from."""

    name: str
    kind: SourceKind
    citation: str
