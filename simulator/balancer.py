"""Choice of a replica within a deployment: `BALANCERS` is the registry.

A balancer gets the ready replicas in order of number (never none), the number of requests routed to the deployment so
far, and a uniform number drawn for this request. Ties go to the lowest number.
"""

from collections.abc import Callable, Sequence

from simulator.fleet import RentedReplica

Balancer = Callable[[Sequence[RentedReplica], int, float], RentedReplica]


def least_outstanding_tokens(ready: Sequence[RentedReplica], routed: int, uniform: float) -> RentedReplica:
    """The replica with the fewest input and output tokens unfinished.

    It knows output lengths, which a real router has to predict: an optimistic choice, stated in the README.
    """
    del routed, uniform
    return min(ready, key=lambda replica: replica.service.outstanding_tokens)


def least_outstanding_requests(ready: Sequence[RentedReplica], routed: int, uniform: float) -> RentedReplica:
    """The replica that holds the fewest requests."""
    del routed, uniform
    return min(ready, key=lambda replica: replica.service.held)


def round_robin(ready: Sequence[RentedReplica], routed: int, uniform: float) -> RentedReplica:
    del uniform
    return ready[routed % len(ready)]


def uniform_random(ready: Sequence[RentedReplica], routed: int, uniform: float) -> RentedReplica:
    del routed
    return ready[int(uniform * len(ready))]


def power_of_two(ready: Sequence[RentedReplica], routed: int, uniform: float) -> RentedReplica:
    """The less loaded of two that are drawn at random (with replacement)."""
    del routed
    scaled = uniform * len(ready)
    first = int(scaled)
    second = int((scaled - first) * len(ready))
    return min(ready[min(first, second)], ready[max(first, second)], key=lambda r: r.service.outstanding_tokens)


BALANCERS: dict[str, Balancer] = {
    "least_outstanding_tokens": least_outstanding_tokens,
    "least_outstanding_requests": least_outstanding_requests,
    "round_robin": round_robin,
    "random": uniform_random,
    "power_of_two": power_of_two,
}
