"""Choice of a replica within a deployment: `BALANCERS` is the registry.

A balancer gets the ready replicas in order of number (two or more), the number of requests routed to the deployment so
far, a uniform number drawn for this request, and its input and output tokens. Ties go to the lowest number. The
compiled engine has its own version of each (`simulator/replica/kernel.py`), which must choose the same.
"""

from collections.abc import Callable, Sequence

import numpy as np

from simulator.fleet.replicas import RentedReplica
from simulator.replica.extension import Router, ask_router

Balancer = Callable[[Sequence[RentedReplica], int, float, int, int], RentedReplica]


def least_outstanding_tokens(
    ready: Sequence[RentedReplica], routed: int, uniform: float, h: int, f: int
) -> RentedReplica:
    """The replica with the fewest input and output tokens unfinished.

    It knows output lengths, which a real router has to predict: an optimistic choice, stated in the README.
    """
    del routed, uniform, h, f
    return min(ready, key=lambda replica: replica.service.outstanding_tokens)


def least_outstanding_requests(
    ready: Sequence[RentedReplica], routed: int, uniform: float, h: int, f: int
) -> RentedReplica:
    """The replica that holds the fewest requests."""
    del routed, uniform, h, f
    return min(ready, key=lambda replica: replica.service.held)


def round_robin(ready: Sequence[RentedReplica], routed: int, uniform: float, h: int, f: int) -> RentedReplica:
    del uniform, h, f
    return ready[routed % len(ready)]


def uniform_random(ready: Sequence[RentedReplica], routed: int, uniform: float, h: int, f: int) -> RentedReplica:
    del routed, h, f
    return ready[int(uniform * len(ready))]


def power_of_two(ready: Sequence[RentedReplica], routed: int, uniform: float, h: int, f: int) -> RentedReplica:
    """The less loaded of two that are drawn at random (with replacement)."""
    del routed, h, f
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


def balancer_of(choice: str | Router) -> Balancer:
    """A balancer by name, or a user's router as one."""
    if isinstance(choice, str):
        return BALANCERS[choice]
    router = choice

    def routed_by_user(ready: Sequence[RentedReplica], routed: int, uniform: float, h: int, f: int) -> RentedReplica:
        outstanding = np.array([replica.service.outstanding_tokens for replica in ready], dtype=np.int64)
        held = np.array([replica.service.held for replica in ready], dtype=np.int64)
        return ready[ask_router(router, outstanding, held, routed, uniform, h, f)]

    return routed_by_user
