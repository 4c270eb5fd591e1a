"""The compiled engine: SimPy keeps the clock and everything rare, `simulator.replica.kernel` does the rest.

Before each event of SimPy the kernel is advanced strictly up to that event's time. It comes back earlier only for more
arrivals or more room. A request has a slot while it is in flight, and a line in the ledger until all of its batch has
left. So memory grows with the requests between the oldest one in flight and the newest, not with the trace.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from simulator.engine.account import WORD
from simulator.engine.base import Engine
from simulator.engine.clock import TickEnvironment
from simulator.engine.kernel_memory import LEDGER_COLUMNS, KernelMemory, prepare, tree_of_minima
from simulator.engine.port import Observation, Priority, Workload
from simulator.engine.results import BATCH_REQUESTS, COLUMN_TYPES, RequestTable
from simulator.errors import InputError, RunError
from simulator.fleet.balancer import balancer_of
from simulator.fleet.replicas import RentedReplica, ReplicaState
from simulator.replica import kernel
from simulator.replica.extension import address_of_router, ask_admission
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER, ReplicaSpec
from simulator.replica.tokenlog import TokenLog
from simulator.rng import draws

MAX_REQUESTS = 2**31 - 1
SEAT_BITS = 32
SEAT = 2**SEAT_BITS - 1
ARRIVAL_COLUMNS = ("arrival_tick", "query_type", "input_tokens", "output_tokens")


class KernelEnvironment(TickEnvironment):
    """An environment that lets `advance` catch up with each event before it happens."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        super().__init__(initial_time=0)
        self._advance = advance

    def step(self) -> None:
        self._advance(self.peek())  # type: ignore[arg-type]
        super().step()


class KernelReplica:
    """One row of the kernel, as the fleet sees it. It keeps its counters when the row goes to another replica."""

    def __init__(self, engine: "CompiledEngine", number: int, row: int) -> None:
        self._engine = engine
        self.number = number
        self.row: int | None = row
        self._last: dict[str, int] = {}

    def _field(self, name: str) -> int:
        return self._last[name] if self.row is None else int(self._engine.state.rows[self.row][name])

    @property
    def outstanding_tokens(self) -> int:
        return self._field("outstanding")

    @property
    def held(self) -> int:
        return self._field("held")

    @property
    def kv_peak_tokens(self) -> int:
        self._engine.settle(self)
        return self._field("kv_peak")

    @property
    def preemptions(self) -> int:
        return self._field("preemptions")

    @property
    def steps(self) -> int:
        self._engine.settle(self)
        return self._field("steps")

    def evict(self, now: int) -> list[int]:
        return self._engine.evict(self, now)

    def release(self) -> int:
        """Give the row back."""
        assert self.row is not None
        row, counted = self.row, ("outstanding", "held", "kv_peak", "preemptions", "steps")
        self._last = {name: self._field(name) for name in counted}
        self.row = None
        return row


class CompiledEngine(Engine):
    """See `Engine`. Equal to `ReferenceEngine` to the bit, and some hundred times as fast."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        prepare()
        super().__init__(*args, **kwargs)
        types = len(self.types)
        counters = np.zeros(kernel.COUNTERS, dtype=np.int64)
        counters[kernel.MORE] = 1
        counters[kernel.TREE_LEAVES] = 1
        counters[kernel.ROUTE_KEY] = np.uint64(self._route_key).astype(np.int64)
        counters[kernel.BALANCE_KEY] = np.uint64(self._balance_key).astype(np.int64)
        counters[kernel.LOGGING] = self._settings.token_log
        counters[kernel.FREE] = 0
        balancer = self._settings.balancer
        if isinstance(balancer, str):
            counters[kernel.BALANCER] = kernel.BALANCER_CODES[balancer]
        else:
            counters[kernel.BALANCER] = kernel.CUSTOM
            counters[kernel.ROUTER_ADDRESS] = address_of_router(balancer)
        self._memory = KernelMemory(counters, types)
        self._services: list[KernelReplica | None] = []  # by row
        self._free_rows: list[int] = []
        self._specs: dict[int, ReplicaSpec] = {}  # by deployment
        self._synced = -1
        self._recent: deque[Workload] = deque()  # chunks with requests that were not given away
        self._recent_first = 0
        self._given_requests = 0
        self._unserved_ticks = 0

    @property
    def state(self) -> Any:
        """What the kernel works on."""
        return self._memory.state

    def _open_replica(self, number: int, deployment: int, spec: ReplicaSpec) -> KernelReplica:
        if self._free_rows:
            row = self._free_rows.pop()
        else:
            row = len(self._services)
            self._services.append(None)
            self._memory.add_row(row)
        self._memory.clear_row(row, number, deployment)
        self._memory.describe(deployment, spec)
        self._specs[deployment] = spec
        service = self._services[row] = KernelReplica(self, number, row)
        return service

    # -- the clock --------------------------------------------------------------------------------------------------

    def _make_environment(self) -> simpy.Environment:
        return KernelEnvironment(self._advance)

    def _start_arrivals(self) -> None:
        """The kernel asks for them."""

    def _advance(self, limit: int) -> None:
        """Let the kernel catch up with the event at `limit`, which has not happened yet."""
        self._sync()
        counters = self.state.counters
        while (code := kernel.advance(self.state, limit)) != kernel.REACHED:
            self._provide(code)
        for row, tick in self.state.drained[: counters[kernel.DRAINED]].tolist():
            number = int(self.state.rows[row]["number"])
            self.fleet.end(self.fleet.replicas[number], tick)
        counters[kernel.DRAINED] = 0
        self._fetch_stranded()
        if self._closed and counters[kernel.PRESENT] == 0 and not self._finished_all.triggered:
            self._at(max(self._now, int(counters[kernel.LAST_LEAVE])), Priority.NORMAL, self._finish)

    def _provide(self, code: int) -> None:
        """Give the kernel what it stopped for."""
        counters = self.state.counters
        if code == kernel.NEED_CHUNK:
            self._take_chunk()
        elif code == kernel.NEED_HEAP:
            row = int(counters[kernel.FAULT_ROW])
            replica = self.state.rows[row]
            self._memory.give_heap(row, 2 * int(replica["held"]))
        elif code == kernel.NEED_STRANDED:
            self._fetch_stranded()
        elif code == kernel.NEED_LOG:
            self._memory.move_log(4 * int(self.state.rows["held"].max()) + 2)
        elif code == kernel.NEED_SLOTS:
            self._memory.widen_slots()
        else:
            self._blame(code)

    def _blame(self, code: int) -> None:
        """Call a function of the user again that gave what cannot be, so that it raises."""
        state, at = self.state, kernel.FAULT_ARGUMENTS
        row = int(state.counters[kernel.FAULT_ROW])
        arguments = state.counters[at : at + 5].tolist()
        if code == kernel.BAD_ROUTER:
            deployment = self.fleet.deployments[row]
            slot = state.slots[arguments[0] & SEAT]
            router = balancer_of(self._settings.balancer)
            uniform = float(draws(self._balance_key, int(slot["request"]), 1)[0])
            routed = int(state.deployments[row]["routed"]) - 1
            router(deployment.ready, routed, uniform, int(slot["input"]), int(slot["output"]))
        else:
            spec = self._specs[int(state.rows[row]["deployment"])]
            if code == kernel.BAD_STEP and spec.step_time is not None:
                spec.step_time.ticks(*arguments[:3])
            elif spec.admission is not None:
                ask_admission(spec.admission, *arguments)
        raise RunError("a function of yours gave what cannot be, and another answer when asked again")

    def _take_chunk(self) -> None:
        counters = self.state.counters
        self._emit()
        chunk = self._next_chunk()
        if chunk is None:
            counters[kernel.MORE] = 0
            return
        first = int(counters[kernel.LOADED])
        if first + len(chunk) > MAX_REQUESTS:
            raise InputError(f"a run takes at most {MAX_REQUESTS:,} requests: split the trace")
        counters[kernel.CHUNK_FIRST] = first
        counters[kernel.LOADED] = first + len(chunk)
        self._recent.append(chunk)
        self._memory.widen_ledger(self._given_requests, first, first + len(chunk) - self._given_requests)
        self._memory.load(chunk)

    def _fetch_stranded(self) -> None:
        """Requests that found no ready replica wait with their deployment."""
        counters, slots = self.state.counters, self.state.slots
        for ticket in self.state.stranded[: counters[kernel.STRANDED]].tolist():
            self.fleet.deployments[int(slots[ticket & SEAT]["deployment"])].waiting.append(ticket)
        counters[kernel.STRANDED] = 0

    # -- control ----------------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Tell the kernel what is ready and where requests go, if that has changed."""
        if self._synced == self.fleet.version and self.state.counters[kernel.CLOSED] == self._closed:
            return
        self._synced = self.fleet.version
        state, fleet = self.state, self.fleet
        state.counters[kernel.CLOSED] = self._closed
        draining = []
        for row, service in enumerate(self._services):
            if service is not None:
                replica = fleet.replicas[service.number]
                if replica.state is ReplicaState.ENDED:
                    self._close_row(service)
                elif replica.state is ReplicaState.DRAINING:
                    draining.append(row)
        state.rows["position"] = kernel.NOBODY
        state.rows["draining"] = 0
        state.rows["draining"][draining] = 1
        self._sync_ready()
        widest = max([1, *(len(table.deployments) for table in fleet.routing)])
        shares = np.zeros((len(self.types), widest))
        targets = np.zeros((len(self.types), widest), dtype=np.int64)
        for kind, table in enumerate(fleet.routing):
            width = len(table.deployments)
            shares[kind, :width], targets[kind, :width] = table.cumulative, table.deployments
            state.routes[kind] = width
        self._memory.replace(shares=shares, targets=targets)

    def _close_row(self, service: KernelReplica) -> None:
        row = service.release()
        self._services[row] = None
        self._free_rows.append(row)

    def _sync_ready(self) -> None:
        """Lay out the ready replicas of each deployment and the trees over their load."""
        ready: list[int] = []
        trees: list[npt.NDArray[np.int64]] = []
        offset = 0
        key = "held" if self.state.counters[kernel.BALANCER] == kernel.LEAST_REQUESTS else "outstanding"
        self._memory.widen_deployments(len(self.fleet.deployments))
        for deployment in self.fleet.deployments:
            rows = [self._row_of(replica.service) for replica in deployment.ready]
            leaves = 1 << max(0, len(rows) - 1).bit_length()
            tree = tree_of_minima(self.state.rows[key][rows], leaves)
            entry = self.state.deployments[deployment.index]
            entry["ready_offset"], entry["ready_count"] = len(ready), len(rows)
            entry["tree_offset"], entry["tree_size"] = offset, leaves
            self.state.rows["position"][rows] = np.arange(len(rows))
            ready += rows
            trees.append(tree)
            offset += len(tree)
        self._memory.replace(
            ready=np.array([*ready, 0], dtype=np.int64),
            load=np.concatenate([*trees, np.zeros(1, dtype=np.int64)]),
        )

    def _row_of(self, service: object) -> int:
        assert isinstance(service, KernelReplica)
        assert service.row is not None
        return service.row

    def settle(self, service: KernelReplica) -> None:
        """Bring the counters of a replica, which may be in the middle of a segment, up to the present."""
        if service.row is not None:
            self._memory.move_log(0)
            kernel.settle(self.state, service.row, self._now)

    def _end(self, replica: RentedReplica, tick: int) -> None:
        assert isinstance(replica.service, KernelReplica)
        self.settle(replica.service)
        super()._end(replica, tick)

    def evict(self, service: KernelReplica, now: int) -> list[int]:
        """See `simulator.replica.port.Service.evict`; tickets instead of requests, as everywhere in this
        engine.
        """
        self._sync()
        row = self._row_of(service)
        held = int(self.state.rows[row]["held"])
        self._memory.move_log(held)
        tickets = np.zeros(held, dtype=np.int64)
        count = kernel.evict(self.state, row, now, tickets)
        assert count == held
        evicted: list[int] = tickets.tolist()
        return evicted

    def _route(self, request: int) -> None:
        self._sync()
        self._memory.move_log(1)
        if not kernel.route_again(self.state, request, self._now):
            self._blame(kernel.BAD_ROUTER)
        self._fetch_stranded()
        if self.state.slots[request & SEAT]["request"] == kernel.NOBODY:
            self._left(request >> SEAT_BITS)

    def _leave(self, request: int, outcome: Outcome) -> None:
        assert outcome is Outcome.FAILED
        kernel.fail_request(self.state, request, self._now)
        self._left(request >> SEAT_BITS)

    def _left(self, request: int) -> None:
        """A request left unserved some time after it arrived."""
        position = request - self._recent_first
        for chunk in self._recent:
            if position < len(chunk):
                self._unserved_ticks += self._now - int(chunk.arrival_tick[position])
                break
            position -= len(chunk)
        self._finish_if_empty()

    def _observe(self) -> Observation:
        seen = self.state.seen.T.copy()
        self.state.seen[:] = 0
        return Observation(self.now_s, *seen)

    def _present(self) -> int:
        return int(self.state.counters[kernel.PRESENT])

    # -- the account ------------------------------------------------------------------------------------------------

    def _account(self) -> tuple[int, int, int]:
        kernel.to_the_present(self.state, self._now)
        counters = self.state.counters
        return int(counters[kernel.INTEGRAL]) % WORD, self._unserved_ticks, int(counters[kernel.EVENTS])

    @property
    def kernel_events(self) -> int:
        """Arrivals and segments that the kernel processed: what its time goes into."""
        return int(self.state.counters[kernel.KERNEL_EVENTS])

    def _batches(self, flush: bool) -> Iterator[RequestTable]:
        stop = kernel.first_in_flight(self.state)
        if flush:
            kernel.enter_unfinished(self.state)
            stop = int(self.state.counters[kernel.NEXT])
        while stop - self._given_requests >= (1 if flush else BATCH_REQUESTS):
            first = self._given_requests
            columns = self._take(min(BATCH_REQUESTS, stop - first))
            if flush:  # the static world knows the first token in advance
                columns["first_token_tick"][columns["first_token_tick"] > self._now] = NEVER
            yield RequestTable(
                types=self.types,
                deployments=tuple(deployment.key for deployment in self.fleet.deployments),
                first_request=first,
                **columns,
            )

    def _take(self, count: int) -> dict[str, Any]:
        """Copy the oldest requests out of the ledger and of the chunks, as columns."""
        columns: dict[str, Any] = {name: np.empty(count, dtype=COLUMN_TYPES[name]) for name in LEDGER_COLUMNS}
        kernel.take_out(self.state.ledger, self._given_requests, *columns.values())
        chunks: list[Workload] = []
        while count:
            start = self._given_requests - self._recent_first
            size = min(count, len(self._recent[0]) - start)
            chunks.append(self._recent[0].slice(start, start + size))
            self._given_requests += size
            count -= size
            if start + size == len(self._recent[0]):
                self._recent_first += len(self._recent.popleft())
        for name in ARRIVAL_COLUMNS:
            columns[name] = np.concatenate([getattr(chunk, name) for chunk in chunks])
        return columns

    def _token_log(self) -> TokenLog | None:
        return self._memory.token_log()
