"""What became of a request."""

from enum import IntEnum


class Outcome(IntEnum):
    """Arrived = served + rejected + failed + in flight, at every instant."""

    IN_FLIGHT = 0
    SERVED = 1
    REJECTED_UNMET = 2  # the plan leaves this share of the demand unmet
    REJECTED_TOO_LARGE = 3  # it could never fit in the KV cache of the replica
    FAILED = 4  # its replica failed, or nobody was left to serve it
