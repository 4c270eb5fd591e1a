"""The arrays that the kernel works on: only Python can make them, and make them larger."""

import functools
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from simulator.engine.port import Workload
from simulator.engine.results import COLUMN_TYPES
from simulator.replica import kernel
from simulator.replica.extension import address_of_admission, address_of_step_time
from simulator.replica.port import ReplicaSpec, no_kernel
from simulator.replica.tokenlog import EVENT_COLUMNS, SEGMENT_COLUMNS, TokenLog

FIRST_HEAP = 32  # pairs that the heap of a new replica holds
FIRST_LOG = 2**16  # rows
FIRST_SLOTS = 2**10

LEDGER_COLUMNS = (  # in the order of `kernel.take_out`
    "outcome",
    "deployment",
    "replica",
    "start_tick",
    "first_token_tick",
    "finish_tick",
    "preemptions",
)


class KernelMemory:
    """The state of the kernel over a run. `state` is another tuple after every call that needs more room."""

    def __init__(self, counters: npt.NDArray[np.int64], types: int) -> None:
        self.state = _empty_state(counters, types)
        self._heap_used = 0
        self._logged: tuple[list[Any], list[Any]] = ([], [])

    def replace(self, **arrays: Any) -> None:
        """Put other arrays in place of some."""
        self.state = self.state._replace(**arrays)

    def add_row(self, row: int) -> None:
        """Room for the next row that was never used, with a heap of its own."""
        if row >= len(self.state.rows):
            rows = _grown(self.state.rows, 2 * row)
            times = tree_of_minima(rows["next_tick"][:row], len(rows))
            self.replace(rows=rows, times=times, drained=np.zeros((len(rows), 2), dtype=np.int64))
            self.replace(scratch=np.zeros((2, len(rows)), dtype=np.int64))
            self.state.counters[kernel.TREE_LEAVES] = len(rows)
        self.give_heap(row, FIRST_HEAP)

    def clear_row(self, row: int, number: int, deployment: int) -> None:
        """Make a row that of a new replica, which keeps the heap."""
        rows = self.state.rows
        replica = rows[row]
        heap = replica["heap_offset"], replica["heap_capacity"]
        rows[row] = np.zeros(1, dtype=kernel.REPLICA)[0]
        replica["heap_offset"], replica["heap_capacity"] = heap
        replica["number"], replica["deployment"] = number, deployment
        replica["next_tick"] = kernel.FAR
        for name in ("position", "partial", "completing_head"):
            replica[name] = kernel.NOBODY

    def give_heap(self, row: int, pairs: int) -> None:
        """Move the heap of a row to a region of at least so many pairs."""
        replica = self.state.rows[row]
        offset, size = int(replica["heap_offset"]), 2 * int(replica["serving"])
        if self._heap_used + 2 * pairs > len(self.state.heap):
            self._pack_heaps(2 * pairs)
            offset = int(replica["heap_offset"])
        heap, end = self.state.heap, self._heap_used
        heap[end : end + size] = heap[offset : offset + size]
        replica["heap_offset"], replica["heap_capacity"] = end, pairs
        self._heap_used = end + 2 * pairs

    def _pack_heaps(self, more: int) -> None:
        """Lay all heaps side by side in an array with room for `more`."""
        rows = self.state.rows
        sizes = 2 * rows["heap_capacity"].astype(np.int64)
        heap = np.zeros(2 * (int(sizes.sum()) + more), dtype=np.int64)
        end = 0
        for row, size in enumerate(sizes.tolist()):
            start = int(rows[row]["heap_offset"])
            heap[end : end + size] = self.state.heap[start : start + size]
            rows[row]["heap_offset"] = end
            end += size
        self._heap_used = end
        self.replace(heap=heap)

    def widen_deployments(self, needed: int) -> None:
        """Room for at least so many deployments."""
        if needed > len(self.state.deployments):
            size = 2 * needed
            self.replace(specs=_grown(self.state.specs, size), deployments=_grown(self.state.deployments, size))

    def describe(self, deployment: int, spec: ReplicaSpec) -> None:
        """Put the specification of a deployment where the kernel finds it."""
        self.widen_deployments(deployment + 1)
        entry = self.state.specs[deployment]
        if spec.discipline.kernel is None:
            raise no_kernel(spec.discipline)
        entry["static"] = spec.discipline.kernel
        entry["base"], entry["prefill"] = spec.step.base, spec.step.prefill_per_token
        entry["decode"], entry["context"] = spec.step.decode_per_sequence, spec.step.context_per_token
        entry["static_prefill"] = spec.prefill_ticks_per_token
        entry["static_decode"] = spec.decode_ticks_per_token
        entry["kv_capacity"] = min(spec.kv_capacity_tokens, 2**62)
        entry["budget"] = min(spec.token_budget, 2**62)
        entry["slots"] = -1 if spec.slots is None else spec.slots
        if spec.step_time is not None:
            entry["custom_step"] = address_of_step_time(spec.step_time.function)
            cost = spec.step_time.cost
            entry["base_s"], entry["prefill_s"] = cost.base_s, cost.prefill_s_per_token
            entry["decode_s"], entry["context_s"] = cost.decode_s_per_sequence, cost.context_s_per_token
        if spec.admission is not None:
            entry["admission"] = address_of_admission(spec.admission)

    def widen_slots(self) -> None:
        """Twice the slots, where all are in use."""
        used = len(self.state.slots)
        self.replace(slots=_free_slots(self.state.slots, 2 * used))
        self.state.counters[kernel.FREE] = used

    def load(self, chunk: Workload) -> None:
        """Put the next arrivals where the kernel finds them."""
        self.replace(
            arrival_tick=_read_only(chunk.arrival_tick, np.int64),
            arrival_kind=_read_only(chunk.query_type, np.int32),
            arrival_input=_read_only(chunk.input_tokens, np.int64),
            arrival_output=_read_only(chunk.output_tokens, np.int64),
        )

    def widen_ledger(self, given: int, first: int, needed: int) -> None:
        """Give the ledger at least so many lines; requests from `given` to before `first` may stand in it."""
        old = self.state.ledger
        if needed > len(old):
            ledger = np.zeros(1 << (needed - 1).bit_length(), dtype=kernel.LEDGER)
            request = given
            while request < first:
                start, to = request & (len(old) - 1), request & (len(ledger) - 1)
                count = min(first - request, len(old) - start, len(ledger) - to)
                ledger[to : to + count] = old[start : start + count]
                request += count
            self.replace(ledger=ledger)

    def move_log(self, more: int) -> None:
        """Move the log out of the kernel's buffers if they have no room for `more` events."""
        counters, state = self.state.counters, self.state
        if not counters[kernel.LOGGING]:
            return
        if counters[kernel.LIFE_EVENTS] + more <= len(state.life) and counters[kernel.SEGMENTS] < len(state.segments):
            return
        self._logged[0].append(state.segments[: counters[kernel.SEGMENTS]].copy())
        self._logged[1].append(state.life[: counters[kernel.LIFE_EVENTS]].copy())
        counters[kernel.SEGMENTS] = counters[kernel.LIFE_EVENTS] = 0
        if more > len(state.life):
            self.replace(life=np.zeros((2 * more, len(EVENT_COLUMNS)), dtype=np.int64))

    def token_log(self) -> TokenLog | None:
        """The whole log, None where none was asked for."""
        counters, state = self.state.counters, self.state
        if not counters[kernel.LOGGING]:
            return None
        segments = [*self._logged[0], state.segments[: counters[kernel.SEGMENTS]]]
        events = [*self._logged[1], state.life[: counters[kernel.LIFE_EVENTS]]]
        return TokenLog.ordered(np.concatenate(segments), np.concatenate(events))


def _empty_state(counters: npt.NDArray[np.int64], types: int) -> Any:
    """The state of a run in which nothing has happened."""
    log_rows = FIRST_LOG if counters[kernel.LOGGING] else 0
    return kernel.State(
        counters=counters,
        slots=_free_slots(np.zeros(0, dtype=kernel.SLOT), FIRST_SLOTS),
        rows=np.zeros(1, dtype=kernel.REPLICA),
        specs=np.zeros(1, dtype=kernel.SPEC),
        deployments=np.zeros(1, dtype=kernel.DEPLOYMENT),
        heap=np.zeros(2 * FIRST_HEAP, dtype=np.int64),
        times=np.full(2, kernel.FAR, dtype=np.int64),
        load=np.full(2, kernel.FAR, dtype=np.int64),
        ready=np.zeros(1, dtype=np.int64),
        shares=np.zeros((types, 1)),
        targets=np.zeros((types, 1), dtype=np.int64),
        routes=np.zeros(types, dtype=np.int64),
        seen=np.zeros((types, 6), dtype=np.int64),
        arrival_tick=_read_only(np.zeros(0), np.int64),
        arrival_kind=_read_only(np.zeros(0), np.int32),
        arrival_input=_read_only(np.zeros(0), np.int64),
        arrival_output=_read_only(np.zeros(0), np.int64),
        ledger=np.zeros(1, dtype=kernel.LEDGER),
        stranded=np.zeros(64, dtype=np.int64),
        drained=np.zeros((1, 2), dtype=np.int64),
        segments=np.zeros((log_rows, len(SEGMENT_COLUMNS)), dtype=np.int64),
        life=np.zeros((log_rows, len(EVENT_COLUMNS)), dtype=np.int64),
        scratch=np.zeros((2, 1), dtype=np.int64),
    )


def is_prepared() -> bool:
    """Whether Numba has the kernel's machine code in its cache (of this or an earlier version)."""
    return any(Path(kernel.advance.stats.cache_path).glob("kernel.advance-*.nbi"))


@functools.cache
def prepare() -> None:
    """Compile the kernel, or load it from Numba's cache, once in a process."""
    state = numba.typeof(_empty_state(np.zeros(kernel.COUNTERS, dtype=np.int64), 1))
    tick = numba.int64
    kernel.advance.compile((state, tick))
    kernel.route_again.compile((state, tick, tick))
    kernel.settle.compile((state, tick, tick))
    kernel.evict.compile((state, tick, tick, numba.int64[::1]))
    kernel.fail_request.compile((state, tick, tick))
    kernel.first_in_flight.compile((state,))
    kernel.enter_unfinished.compile((state,))
    columns = [numba.typeof(np.empty(0, dtype=COLUMN_TYPES[name])) for name in LEDGER_COLUMNS]
    kernel.take_out.compile((numba.typeof(np.zeros(0, dtype=kernel.LEDGER)), tick, *columns))
    kernel.to_the_present.compile((state, tick))


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    grown = np.zeros(size, dtype=array.dtype)
    grown[: len(array)] = array
    return grown


def _read_only(column: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A column as the kernel's signature wants it, without a copy where it is so already."""
    plain = np.ascontiguousarray(column, dtype=dtype)
    if plain.flags.writeable:
        plain = plain.view()
        plain.setflags(write=False)
    return plain


def tree_of_minima(values: npt.NDArray[np.int64], leaves: int) -> npt.NDArray[np.int64]:
    """A binary tree over so many leaves (a power of two): node n is the lesser of its children 2n and 2n + 1."""
    tree = np.full(2 * leaves, kernel.FAR, dtype=np.int64)
    tree[leaves : leaves + len(values)] = values
    while leaves > 1:
        level = tree[leaves : 2 * leaves]
        leaves //= 2
        tree[leaves : 2 * leaves] = np.minimum(level[::2], level[1::2])
    return tree


def _free_slots(used: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Slots with a chain of free ones behind those in use."""
    slots = _grown(used, size)
    slots["request"][len(used) :] = kernel.NOBODY
    slots["next"][len(used) :] = np.arange(len(used) + 1, size + 1)
    slots["next"][-1] = kernel.NOBODY
    return slots
