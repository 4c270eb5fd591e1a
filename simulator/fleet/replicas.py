"""The rented fleet: replicas that start, serve, drain and end, and the routing in force.

A new plan is a transition, make before break: replicas that it adds are rented and load while the old routing goes on
over the old fleet; added replicas of a deployment that is already routed to take part as soon as they are ready; when
the last one is ready, the routing switches and what is surplus drains. A draining replica takes no new request and ends
with its last one. A plan that comes during a transition replaces its target.
"""

import bisect
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import accumulate

from simulator.catalog.configuration import DeploymentKey
from simulator.errors import RunError
from simulator.planning.plan import Plan
from simulator.replica.port import ReplicaSpec, Service

MAX_DEPLOYMENTS = 2**15 - 1  # their index takes two bytes per request


def replicas_by_deployment(plan: Plan) -> dict[DeploymentKey, int]:
    """Replicas that a plan asks for, by what they are made of."""
    wanted: dict[DeploymentKey, int] = {}
    for item in plan.deployments:
        key = item.configuration.deployment_key
        wanted[key] = wanted.get(key, 0) + item.replicas
    return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOffer:
    """What it means to rent one replica: how it serves, how long it takes to start, what it costs."""

    spec: ReplicaSpec
    startup_ticks: int  # provisioning and loading of the weights
    gpus: int
    price_usd_per_h: float  # of the whole replica


class ReplicaState(Enum):
    LOADING = auto()
    READY = auto()
    DRAINING = auto()
    ENDED = auto()


@dataclass(slots=True, kw_only=True, eq=False)
class RentedReplica:
    """One replica over its life. `end_tick` is None while it is rented."""

    number: int
    deployment: int
    offer: ReplicaOffer
    service: Service
    state: ReplicaState
    rent_tick: int
    ready_tick: int
    end_tick: int | None = None


@dataclass(slots=True, eq=False)
class FleetDeployment:
    """Replicas of one key, and requests that wait while none of them is ready (after failures only)."""

    index: int
    key: DeploymentKey
    replicas: list[RentedReplica] = field(default_factory=list)  # those that are not ended
    ready: list[RentedReplica] = field(default_factory=list)  # in order of number
    waiting: deque[int] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Cumulative shares of one query type over deployments; what is left above the last is rejected."""

    cumulative: tuple[float, ...]
    deployments: tuple[int, ...]

    def draw(self, uniform: float) -> int | None:
        """Deployment for a number drawn from [0, 1), None for the unmet share."""
        position = bisect.bisect_right(self.cumulative, uniform)
        return self.deployments[position] if position < len(self.deployments) else None


OpenReplica = Callable[[int, int, ReplicaSpec], Service]
"""Makes the service of a replica from its number, the index of its deployment and its specification."""


class Fleet:
    """Deployments by index, with the routing in force. The engine calls it and schedules what it says.

    `version` grows with every change of what is ready and of the routing.
    """

    def __init__(
        self, offer_of: Callable[[DeploymentKey], ReplicaOffer], open_replica: OpenReplica, types: tuple[str, ...]
    ) -> None:
        self._offer_of = offer_of
        self._offers: dict[DeploymentKey, ReplicaOffer] = {}
        self._open_replica = open_replica
        self._types = types
        self.version = 0
        self._target: Plan | None = None  # the plan of a transition under way
        self.deployments: list[FleetDeployment] = []
        self._index: dict[DeploymentKey, int] = {}
        self.replicas: list[RentedReplica] = []  # all that were ever rented
        self.routing: tuple[RoutingTable, ...] = tuple(RoutingTable((), ()) for _ in types)

    def _deployment(self, key: DeploymentKey) -> FleetDeployment:
        index = self._index.get(key)
        if index is None:
            if len(self.deployments) == MAX_DEPLOYMENTS:
                raise RunError(f"the plans of this run name more than {MAX_DEPLOYMENTS} deployments")
            index = self._index[key] = len(self.deployments)
            self.deployments.append(FleetDeployment(index, key))
        return self.deployments[index]

    def rent(self, key: DeploymentKey, now: int, ready_tick: int | None = None) -> RentedReplica:
        """Rent a replica; it is ready after its start-up, or at `ready_tick` (rented before the run)."""
        deployment = self._deployment(key)
        offer = self._offers.get(key)
        if offer is None:
            offer = self._offers[key] = self._offer_of(key)
        replica = RentedReplica(
            number=len(self.replicas),
            deployment=deployment.index,
            offer=offer,
            service=self._open_replica(len(self.replicas), deployment.index, offer.spec),
            state=ReplicaState.LOADING,
            rent_tick=now if ready_tick is None else ready_tick - offer.startup_ticks,
            ready_tick=now + offer.startup_ticks if ready_tick is None else ready_tick,
        )
        self.replicas.append(replica)
        deployment.replicas.append(replica)
        return replica

    def apply(self, plan: Plan, now: int) -> list[RentedReplica]:
        """Begin the transition to `plan`; return the replicas that were rented and load now."""
        wanted = replicas_by_deployment(plan)
        rented: list[RentedReplica] = []
        for key, count in wanted.items():
            deployment = self._deployment(key)
            missing = count - sum(r.state is not ReplicaState.DRAINING for r in deployment.replicas)
            for replica in [r for r in deployment.replicas if r.state is ReplicaState.DRAINING][: max(0, missing)]:
                self._set_ready(replica)  # it still holds its weights
                missing -= 1
            rented += [self.rent(key, now) for _ in range(max(0, missing))]
        for deployment in self.deployments:
            self._cancel_loading(deployment, wanted.get(deployment.key, 0), now)
        self._target = plan
        self._switch_if_ready(now)
        return rented

    def _cancel_loading(self, deployment: FleetDeployment, wanted: int, now: int) -> None:
        """End surplus replicas that only load, the newest first."""
        active = [r for r in deployment.replicas if r.state is not ReplicaState.DRAINING]
        loading = [r for r in active if r.state is ReplicaState.LOADING]
        for replica in loading[len(loading) - max(0, min(len(loading), len(active) - wanted)) :]:
            self.end(replica, now)

    def became_ready(self, replica: RentedReplica, now: int) -> None:
        """A replica has loaded."""
        self._set_ready(replica)
        self._switch_if_ready(now)

    def _set_ready(self, replica: RentedReplica) -> None:
        self.version += 1
        replica.state = ReplicaState.READY
        bisect.insort(self.deployments[replica.deployment].ready, replica, key=lambda r: r.number)

    def _switch_if_ready(self, now: int) -> None:
        plan = self._target
        if plan is None:
            return
        if any(r.state is ReplicaState.LOADING for d in self.deployments for r in d.replicas):
            return
        self._target = None
        self.version += 1
        self.routing = self._routing_of(plan)
        wanted = replicas_by_deployment(plan)
        for deployment in self.deployments:
            surplus = len(deployment.ready) - wanted.get(deployment.key, 0)
            if surplus > 0:  # the least loaded drain first, the newest of equals
                order = sorted(deployment.ready, key=lambda r: (r.service.outstanding_tokens, -r.number))
                for replica in order[:surplus]:
                    self.drain(replica, now)

    def _routing_of(self, plan: Plan) -> tuple[RoutingTable, ...]:
        index = {item.configuration.pair: self._index[item.configuration.deployment_key] for item in plan.deployments}
        tables = []
        for name in self._types:
            routes = [route for route in plan.routing if route.query_type == name and route.share > 0]
            shares = list(accumulate(route.share for route in routes))
            unmet = dict(plan.unmet).get(name, 0.0)
            if routes and unmet <= 0:
                shares[-1] = 1.0  # rounding must not reject anything
            tables.append(RoutingTable(tuple(shares), tuple(index[route.model, route.tier] for route in routes)))
        return tuple(tables)

    def drain(self, replica: RentedReplica, now: int) -> None:
        """Take no new request; end with the last one."""
        if replica.state is ReplicaState.LOADING:
            self.end(replica, now)
            return
        self.version += 1
        replica.state = ReplicaState.DRAINING
        self.deployments[replica.deployment].ready.remove(replica)
        if replica.service.held == 0:
            self.end(replica, now)

    def end(self, replica: RentedReplica, now: int) -> None:
        """Give the replica back: it is paid up to `now`."""
        deployment = self.deployments[replica.deployment]
        if replica.state is ReplicaState.READY:
            self.version += 1
            deployment.ready.remove(replica)
        deployment.replicas.remove(replica)
        replica.state = ReplicaState.ENDED
        replica.end_tick = now

    def drain_all(self, now: int) -> None:
        """End of the run: nothing new will come."""
        self._target = None
        for replica in list(self.rented()):
            if replica.state is not ReplicaState.DRAINING:
                self.drain(replica, now)

    def rented(self) -> Iterator[RentedReplica]:
        """Replicas that are rented now."""
        for deployment in self.deployments:
            yield from deployment.replicas
