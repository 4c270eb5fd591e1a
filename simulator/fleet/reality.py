"""The realised world, which may differ from the one that was planned for: that is what stress means."""

from dataclasses import dataclass
from enum import StrEnum


class OnFailure(StrEnum):
    """What happens to the requests of a replica that fails."""

    REQUEUE = "requeue"  # routed again; the tokens that were already generated are kept
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reality:
    """How the world differs from the planner's.

    Attributes
    ----------
    delay_factor
        True step and request times over nominal ones (every coefficient alike), above 0.
    error_factor
        True error of a served request over the nominal one.
    failures_per_replica_h
        Rate of failures of one ready replica [1/h], exponential times between them. The lost replica is replaced by a
        new one, which has to start up.
    on_failure
        What happens to its requests.
    """

    delay_factor: float = 1.0
    error_factor: float = 1.0
    failures_per_replica_h: float = 0.0
    on_failure: OnFailure = OnFailure.REQUEUE
