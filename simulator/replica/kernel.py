"""The data plane in machine code: arrivals, routing and replicas, advanced by Numba between the events of SimPy.

What happens is defined by `simulator/engine/reference.py` and `simulator/replica/`; this module does the
same, to the bit, without an event per step. `simulator/engine/compiled.py` drives it.

*Segments.* Between two changes of a batch all steps are of one kind: n sequences decode, P tokens are prefilled. Their
durations are an arithmetic series, because the context grows by n tokens a step: step j (from 0) takes
first + j x growth ticks. So a whole segment is one event. It ends with the step that finishes a sequence, completes a
prefill or would overflow the KV cache. An arrival cuts it at the next boundary, which a quadratic gives and integers
correct. A head of the queue that is blocked stays blocked until a sequence finishes, so it cuts nothing.

*Order.* Control is outside; within, an arrival comes before the boundaries of its tick. Boundaries of different
replicas at one tick do not touch each other, so that their order is free.

*Memory.* One slot of 64 bytes per request in flight; one row per replica; a heap of finish times per replica; a tree of
minima over the replicas' next ticks and one per deployment over their load; a ledger of 40 bytes per request, from the
oldest in flight to the newest, which the driver empties. Sums are kept incrementally: a request costs O(log n), a
preemption O(n).

*Names.* A request is known by its seat, the index of its slot. Where requests are compared or handed to the driver they
go as tickets: the request's number in the upper and its seat in the lower 32 bits, so that tickets sort by number.

Integers wrap silently here. Ticks stay below 2^62 (`simulator/ticks.py`); what could go beyond is compared as a float
first and then never comes (`FAR`). The integral of Little's law is kept modulo 2^64 on purpose.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from simulator.replica.extension import RAISED as ADMISSION_RAISED
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER as NEVER_TICK
from simulator.replica.tokenlog import BETWEEN_STEPS, LifeEvent
from simulator.rng import GOLDEN_GAMMA, MIX_1, MIX_2, UNIT
from simulator.ticks import TICKS_PER_S

NEVER = np.int64(NEVER_TICK)
FAR = np.int64(2**63 - 1)  # the next tick of a replica that has none
BEYOND = 2.0**62  # ticks that no run reaches
NOBODY = -1
RAISED = np.int64(ADMISSION_RAISED)

SLOT = np.dtype(
    [
        ("start", "i8"),
        ("first", "i8"),
        ("finish_step", "i8"),  # while it decodes
        ("request", "i4"),
        ("input", "i4"),
        ("output", "i4"),
        ("generated", "i4"),
        ("preemptions", "i4"),
        ("replica", "i4"),
        ("next", "i4"),  # seat, in the queue, among the completing or among the free ones
        ("order", "i4"),  # of admission, among those in service
        ("kind", "i4"),  # query type
        ("deployment", "i2"),
    ],
    align=True,
)

LEDGER = np.dtype(
    [
        ("start", "i8"),
        ("first", "i8"),
        ("finish", "i8"),
        ("replica", "i4"),
        ("preemptions", "i4"),
        ("deployment", "i2"),
        ("outcome", "u1"),
    ],
    align=True,
)

REPLICA = np.dtype(
    [
        ("next_tick", "i8"),
        ("segment_start", "i8"),
        ("first_ticks", "i8"),
        ("growth_ticks", "i8"),
        ("segment_steps", "i8"),
        ("prefill", "i8"),  # tokens that each step of the segment prefills
        ("steps", "i8"),
        ("context", "i8"),  # KV tokens of those in service, at the start of the segment
        ("reserved", "i8"),
        ("outstanding", "i8"),
        ("kv_peak", "i8"),
        ("preemptions", "i8"),
        ("partial_left", "i8"),
        ("heap_offset", "i8"),
        ("heap_capacity", "i4"),
        ("number", "i4"),
        ("deployment", "i4"),
        ("position", "i4"),  # among the ready replicas of its deployment, -1 if it is not ready
        ("serving", "i4"),  # sequences that decode, static: requests in service; the size of its heap
        ("admitted", "i4"),  # requests that ever were
        ("partial", "i4"),
        ("completing_head", "i4"),
        ("completing_tail", "i4"),
        ("queue_head", "i4"),
        ("queue_tail", "i4"),
        ("held", "i4"),
        ("queued", "i4"),
        ("stepping", "u1"),
        ("draining", "u1"),
    ],
    align=True,
)

SPEC = np.dtype(
    [
        ("static", "i8"),
        ("base", "i8"),
        ("prefill", "i8"),
        ("decode", "i8"),
        ("context", "i8"),
        ("static_prefill", "i8"),
        ("static_decode", "i8"),
        ("kv_capacity", "i8"),
        ("budget", "i8"),
        ("slots", "i8"),
        ("custom_step", "i8"),  # address of the user's step time, 0 for none
        ("admission", "i8"),  # address of the user's rule, 0 for none
        ("base_s", "f8"),
        ("prefill_s", "f8"),
        ("decode_s", "f8"),
        ("context_s", "f8"),
    ]
)

DEPLOYMENT = np.dtype(
    [
        ("ready_offset", "i8"),
        ("ready_count", "i8"),
        ("tree_offset", "i8"),
        ("tree_size", "i8"),  # leaves, a power of two
        ("routed", "i8"),
    ]
)

# Indices into the counters.
NEXT, LOADED, CHUNK_FIRST, MORE, CLOSED = 0, 1, 2, 3, 4
PRESENT, SINCE, INTEGRAL, EVENTS, KERNEL_EVENTS, LAST_LEAVE = 6, 7, 8, 9, 10, 11
STRANDED, DRAINED, SEGMENTS, LIFE_EVENTS, LOGGING = 12, 13, 14, 15, 16
BALANCER, ROUTER_ADDRESS, ROUTE_KEY, BALANCE_KEY, TREE_LEAVES = 17, 18, 19, 20, 21
FREE, DONE, FAULT, FAULT_ROW, FAULT_ARGUMENTS = 22, 23, 24, 25, 26  # up to five arguments
COUNTERS = FAULT_ARGUMENTS + 5

# What `advance` returns.
REACHED, NEED_CHUNK, NEED_HEAP, NEED_LOG, NEED_STRANDED, NEED_SLOTS, BAD_STEP, BAD_ADMISSION, BAD_ROUTER = range(9)

LEAST_TOKENS, LEAST_REQUESTS, ROUND_ROBIN, RANDOM, POWER_OF_TWO, CUSTOM = 0, 1, 2, 3, 4, 5
BALANCER_CODES = {
    "least_outstanding_tokens": LEAST_TOKENS,
    "least_outstanding_requests": LEAST_REQUESTS,
    "round_robin": ROUND_ROBIN,
    "random": RANDOM,
    "power_of_two": POWER_OF_TWO,
}

IN_FLIGHT, SERVED = int(Outcome.IN_FLIGHT), int(Outcome.SERVED)
REJECTED_UNMET, REJECTED_TOO_LARGE = int(Outcome.REJECTED_UNMET), int(Outcome.REJECTED_TOO_LARGE)
FAILED = int(Outcome.FAILED)
TICKS = float(TICKS_PER_S)
QUEUED, ADMITTED, DECODING = int(LifeEvent.QUEUED), int(LifeEvent.ADMITTED), int(LifeEvent.DECODING)
PREEMPTED, EVICTED, FINISHED = int(LifeEvent.PREEMPTED), int(LifeEvent.EVICTED), int(LifeEvent.FINISHED)
U_GAMMA, U_MIX_1, U_MIX_2 = np.uint64(GOLDEN_GAMMA), np.uint64(MIX_1), np.uint64(MIX_2)

State = namedtuple(
    "State",
    [
        "counters",
        "slots",  # SLOT
        "rows",  # REPLICA
        "specs",  # SPEC, one per deployment
        "deployments",  # DEPLOYMENT
        "heap",  # int64 pairs (step or tick of the finish, ticket) in a region per replica
        "times",  # int64, tree of minima of `next_tick`
        "load",  # int64, trees of minima over the ready replicas of each deployment
        "ready",  # int64, rows of the ready replicas, deployment by deployment
        "shares",  # float64 (types, routes), cumulative
        "targets",  # int64 (types, routes), deployments
        "routes",  # int64 (types,), how many
        "seen",  # int64 (types, 6), sums of an `Observation`
        "arrival_tick",  # the chunk
        "arrival_kind",
        "arrival_input",
        "arrival_output",
        "ledger",  # LEDGER, a power of two of them, by request number
        "stranded",  # int64, tickets of requests that found no ready replica
        "drained",  # int64 (rows, 2): row and tick of a draining replica that ran empty
        "segments",  # int64 (n, 8), see `simulator.replica.tokenlog`
        "life",  # int64 (n, 6)
        "scratch",  # int64 (2, rows), loads that a user's router sees
    ],
)

# Nothing here allocates, so Numba's reference counts are off (`_nrt`): with them every access to a record would be two
# atomic operations, and a run ten times as long. All is inlined: a call would pass thirty arrays by value. By LLVM:
# what Numba inlines (`inline="always"`) is as fast, and takes twice as long to compile.
inlined = njit(error_model="numpy", _nrt=False, forceinline=True)
compiled = njit(cache=True, error_model="numpy", _nrt=False)


# -- calls through addresses ----------------------------------------------------------------------------------------


def _call_by_address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
    function_type = ir.FunctionType(context.get_value_type(signature.return_type), kinds)
    pointer = builder.inttoptr(args[0], ir.PointerType(function_type))
    return builder.call(pointer, args[1:])


@intrinsic
def call_step(typing_context, address, prefill, sequences, tokens, base, per_prefill, per_sequence, per_token):
    """Call a C function double(int64 x 3, double x 4)."""
    signature = types.float64(types.int64, *(types.int64,) * 3, *(types.float64,) * 4)
    return signature, _call_by_address


@intrinsic
def call_admission(typing_context, address, prompt, room, budget, sequences, waiting):
    """Call a C function int64(int64 x 5)."""
    return types.int64(types.int64, *(types.int64,) * 5), _call_by_address


@intrinsic
def call_router(typing_context, address, outstanding, held, count, routed, uniform, inputs, outputs):
    """Call a C function int64(int64*, int64*, int64, int64, double, int64, int64), pointers given as integers."""
    i8, f8 = types.int64, types.float64
    return types.int64(i8, types.uintp, types.uintp, i8, i8, f8, i8, i8), _call_router


def _call_router(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    i8, f8 = ir.IntType(64), ir.DoubleType()
    pointer_type = ir.PointerType(i8)
    function_type = ir.FunctionType(i8, [pointer_type, pointer_type, i8, i8, f8, i8, i8])
    function = builder.inttoptr(args[0], ir.PointerType(function_type))
    pointers = [builder.inttoptr(value, pointer_type) for value in args[1:3]]
    return builder.call(function, [*pointers, *args[3:]])


# -- small tools ----------------------------------------------------------------------------------------------------


@inlined
def uniform_draw(key, request):
    """The request's own draw, as `simulator.rng.draws` gives it."""
    z = np.uint64(key) + (np.uint64(request) + np.uint64(1)) * U_GAMMA
    z = (z ^ (z >> np.uint64(30))) * U_MIX_1
    z = (z ^ (z >> np.uint64(27))) * U_MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * UNIT


@inlined
def set_leaf(tree, offset, leaves, leaf, value):
    """Set a leaf of a tree of minima and mend the path to its root, `tree[offset + 1]`."""
    node = leaves + leaf
    tree[offset + node] = value
    while node > 1:
        other = tree[offset + (node ^ 1)]
        if other < value:
            value = other
        node >>= 1
        if tree[offset + node] == value:
            break
        tree[offset + node] = value


@inlined
def least_leaf(tree, offset, leaves):
    """The first leaf that holds the minimum."""
    least = tree[offset + 1]
    node = 1
    while node < leaves:
        node <<= 1
        if tree[offset + node] != least:
            node += 1
    return node - leaves


@inlined
def heap_rise(heap, offset, node, key, ticket):
    """Put a pair at a node of a heap, or above it. Nodes have four children: as much as a cache line holds."""
    while node > 0:
        parent = (node - 1) >> 2
        at = offset + 2 * parent
        if heap[at] < key or (heap[at] == key and heap[at + 1] < ticket):
            break
        heap[offset + 2 * node] = heap[at]
        heap[offset + 2 * node + 1] = heap[at + 1]
        node = parent
    heap[offset + 2 * node] = key
    heap[offset + 2 * node + 1] = ticket


@inlined
def heap_sink(heap, offset, size, node, key, ticket):
    """Put a pair at a node of a heap of `size`, or below it."""
    while True:
        child = 4 * node + 1
        if child >= size:
            break
        least = offset + 2 * child
        end = offset + 2 * min(child + 4, size)
        for at in range(least + 2, end, 2):
            if heap[at] < heap[least] or (heap[at] == heap[least] and heap[at + 1] < heap[least + 1]):
                least = at
        if key < heap[least] or (key == heap[least] and ticket < heap[least + 1]):
            break
        heap[offset + 2 * node] = heap[least]
        heap[offset + 2 * node + 1] = heap[least + 1]
        node = (least - offset) >> 1
    heap[offset + 2 * node] = key
    heap[offset + 2 * node + 1] = ticket


@inlined
def elapsed_ticks(first, growth, steps):
    """Ticks of the first steps of a segment."""
    return first * steps + growth * ((steps * (steps - 1)) >> 1)


@inlined
def steps_until(first, growth, limit, elapsed):
    """The fewest steps, 1 to `limit`, that take `elapsed` ticks or more; `limit` if there are none."""
    if growth == 0:
        steps = (elapsed + first - 1) // first
    else:
        slope = np.float64(first) - 0.5 * np.float64(growth)
        root = np.sqrt(slope * slope + 2.0 * np.float64(growth) * np.float64(elapsed))
        estimate = (root - slope) / np.float64(growth)
        steps = limit if estimate >= np.float64(limit) else np.int64(estimate)
    steps = min(max(steps, 1), limit)
    while steps > 1 and elapsed_ticks(first, growth, steps - 1) >= elapsed:
        steps -= 1
    while steps < limit and elapsed_ticks(first, growth, steps) < elapsed:
        steps += 1
    return steps


@inlined
def count_present(counters, now, change):
    counters[INTEGRAL] += counters[PRESENT] * (now - counters[SINCE])
    counters[SINCE] = now
    counters[PRESENT] += change


# -- replicas -------------------------------------------------------------------------------------------------------


@inlined
def set_next(s, row, tick):
    """State the next boundary of a replica."""
    s.rows[row].next_tick = tick
    set_leaf(s.times, 0, s.counters[TREE_LEAVES], row, tick)


@inlined
def load_changed(s, row):
    """Tell the tree of the deployment what the replica holds now."""
    replica = s.rows[row]
    if replica.position >= 0 and s.counters[BALANCER] <= LEAST_REQUESTS:
        deployment = s.deployments[replica.deployment]
        value = replica.outstanding if s.counters[BALANCER] == LEAST_TOKENS else np.int64(replica.held)
        set_leaf(s.load, deployment.tree_offset, deployment.tree_size, replica.position, value)


@inlined
def ticket_of(s, seat):
    return (np.int64(s.slots[seat].request) << 32) | seat


@inlined
def seat_of(ticket):
    return ticket & 0xFFFFFFFF


@inlined
def log_life(s, seat, kind, tick, row, tokens):
    at, replica = s.counters[LIFE_EVENTS], s.rows[row]
    event = s.life[at]
    event[0], event[1], event[2] = s.slots[seat].request, kind, tick
    event[3], event[5] = replica.number, tokens
    event[4] = BETWEEN_STEPS if kind == QUEUED else replica.steps
    s.counters[LIFE_EVENTS] = at + 1


@inlined
def enter(s, seat, outcome, finish):
    """Enter into the ledger what is known of a request."""
    slot = s.slots[seat]
    entry = s.ledger[slot.request & (len(s.ledger) - 1)]
    entry.outcome = outcome
    entry.deployment = slot.deployment
    entry.replica = slot.replica
    entry.start = slot.start
    entry.first = slot.first
    entry.finish = finish
    entry.preemptions = slot.preemptions


@inlined
def leave(s, seat, outcome, finish, now):
    """A request goes, and its slot is free."""
    counters, slot = s.counters, s.slots[seat]
    enter(s, seat, outcome, finish)
    slot.request = NOBODY
    slot.next = counters[FREE]
    counters[FREE] = seat
    count_present(counters, now, -1)
    counters[LAST_LEAVE] = now


@inlined
def finish(s, row, seat, now):
    """A request is served."""
    replica, slot = s.rows[row], s.slots[seat]
    inputs, outputs = np.int64(slot.input), np.int64(slot.output)
    replica.held -= 1
    replica.outstanding -= inputs + outputs
    kind = slot.kind
    s.seen[kind, 2] += 1
    s.seen[kind, 3] += outputs
    s.seen[kind, 4] += inputs * outputs
    s.seen[kind, 5] += outputs * outputs
    if s.counters[LOGGING]:
        log_life(s, seat, FINISHED, now, row, outputs)
    leave(s, seat, SERVED, now, now)


@inlined
def start_serving(s, row, seat, key):
    """Put a request among those in service, up to step or tick `key`."""
    replica, slot = s.rows[row], s.slots[seat]
    slot.order = replica.admitted
    replica.admitted += 1
    heap_rise(s.heap, replica.heap_offset, np.int64(replica.serving), key, ticket_of(s, seat))
    replica.serving += 1


@inlined
def pop_serving(s, row):
    """Take the one that is due first out of service; its seat."""
    replica = s.rows[row]
    offset = replica.heap_offset
    seat = seat_of(s.heap[offset + 1])
    replica.serving -= 1
    last = offset + 2 * replica.serving
    heap_sink(s.heap, offset, np.int64(replica.serving), 0, s.heap[last], s.heap[last + 1])
    return seat


@inlined
def pop_latest(s, row):
    """Take the one that was admitted last out of service; its seat. It costs O(n), but only a full KV cache asks."""
    replica = s.rows[row]
    offset, latest, order = replica.heap_offset, np.int64(0), np.int64(NOBODY)
    for node in range(replica.serving):
        slot = s.slots[seat_of(s.heap[offset + 2 * node + 1])]
        if slot.order > order:
            latest, order = np.int64(node), np.int64(slot.order)
    seat = seat_of(s.heap[offset + 2 * latest + 1])
    replica.serving -= 1
    size = np.int64(replica.serving)
    if latest < size:
        key, ticket = s.heap[offset + 2 * size], s.heap[offset + 2 * size + 1]
        above = offset + 2 * ((latest - 1) >> 2)
        if latest > 0 and (key < s.heap[above] or (key == s.heap[above] and ticket < s.heap[above + 1])):
            heap_rise(s.heap, offset, latest, key, ticket)
        else:
            heap_sink(s.heap, offset, size, latest, key, ticket)
    return seat


@inlined
def append_completing(s, row, seat):
    replica = s.rows[row]
    s.slots[seat].next = NOBODY
    if replica.completing_head < 0:
        replica.completing_head = seat
    else:
        s.slots[replica.completing_tail].next = seat
    replica.completing_tail = seat


@inlined
def pop_queue(s, row):
    replica = s.rows[row]
    replica.queue_head = s.slots[replica.queue_head].next
    replica.queued -= 1


@inlined
def end_segment(s, row, now, steps):
    """Account for so many completed steps of the running segment."""
    replica = s.rows[row]
    if s.counters[LOGGING] and steps > 0:
        at = s.counters[SEGMENTS]
        segment = s.segments[at]
        segment[0], segment[1], segment[2], segment[3] = replica.number, replica.steps, replica.segment_start, steps
        segment[4], segment[5] = replica.first_ticks, replica.growth_ticks
        segment[6], segment[7] = replica.serving, replica.prefill
        s.counters[SEGMENTS] = at + 1
    replica.steps += steps
    replica.context += replica.serving * steps
    if replica.partial >= 0 and steps > 1:
        replica.partial_left -= replica.prefill * (steps - 1)


@inlined
def complete(s, row, now):
    """The step that ends gives its tokens."""
    replica = s.rows[row]
    while replica.serving > 0 and s.heap[replica.heap_offset] <= replica.steps:
        seat = pop_serving(s, row)
        slot = s.slots[seat]
        replica.context -= np.int64(slot.input) + np.int64(slot.output) - 1
        finish(s, row, seat, now)
    seat = np.int64(replica.completing_head)
    replica.completing_head = NOBODY
    while seat >= 0:
        slot = s.slots[seat]
        following = np.int64(slot.next)
        prompt = np.int64(slot.input) + np.int64(slot.generated)
        replica.reserved -= prompt
        left = np.int64(slot.output) - np.int64(slot.generated) - 1  # the prefill itself gives one token
        if s.counters[LOGGING]:
            log_life(s, seat, DECODING, now, row, prompt)
        if left >= 0 and slot.first == NEVER:
            slot.first = now
        if left <= 0:
            finish(s, row, seat, now)
        else:
            slot.finish_step = replica.steps + left
            start_serving(s, row, seat, replica.steps + left)
            replica.context += prompt
        seat = following


@inlined
def preempt(s, row, now, capacity):
    """Make room for the next decode step; whether that took anything."""
    replica = s.rows[row]
    preempted = False
    while replica.context + replica.reserved + replica.serving > capacity:
        if replica.partial >= 0:  # it was admitted last
            seat = np.int64(replica.partial)
            slot = s.slots[seat]
            replica.partial = NOBODY
            replica.reserved -= np.int64(slot.input) + np.int64(slot.generated)
        else:
            seat = pop_latest(s, row)
            slot = s.slots[seat]
            slot.generated = slot.output - (slot.finish_step - replica.steps)
            replica.context -= np.int64(slot.input) + np.int64(slot.generated) - 1
        slot.preemptions += 1
        replica.preemptions += 1
        slot.next = replica.queue_head if replica.queued > 0 else NOBODY
        if replica.queued == 0:
            replica.queue_tail = seat
        replica.queue_head = seat
        replica.queued += 1
        if s.counters[LOGGING]:
            log_life(s, seat, PREEMPTED, now, row, np.int64(slot.generated))
        preempted = True
    return preempted


@inlined
def blame(s, row, fault, one, two, three, four, five):
    """Keep the arguments of a function of the user that gave what cannot be, or raised."""
    counters = s.counters
    counters[FAULT], counters[FAULT_ROW] = fault, row
    counters[FAULT_ARGUMENTS] = one
    counters[FAULT_ARGUMENTS + 1] = two
    counters[FAULT_ARGUMENTS + 2] = three
    counters[FAULT_ARGUMENTS + 3] = four
    counters[FAULT_ARGUMENTS + 4] = five


@inlined
def admit(s, row, now, spec, prefill):
    """Admit from the head of the queue; the prefill tokens of the step, `RAISED` if the user's rule raised."""
    replica = s.rows[row]
    serving = np.int64(replica.serving)
    room = spec.kv_capacity - replica.context - replica.reserved - serving
    budget = spec.budget - serving - prefill
    custom = spec.admission
    while replica.queued > 0 and replica.partial < 0 and (budget > 0 or custom != 0):
        seat = np.int64(replica.queue_head)
        slot = s.slots[seat]
        prompt = np.int64(slot.input) + np.int64(slot.generated)
        if prompt > room:
            break
        tokens = min(prompt, budget)
        if custom != 0:
            queued = np.int64(replica.queued)
            tokens = min(prompt, call_admission(custom, prompt, room, budget, serving, queued))
            if tokens == RAISED:
                blame(s, row, BAD_ADMISSION, prompt, room, budget, serving, queued)
                return RAISED
            if tokens < 0:
                break
        pop_queue(s, row)
        if slot.start == NEVER:
            slot.start = now
        if s.counters[LOGGING]:
            log_life(s, seat, ADMITTED, now, row, tokens)
        room -= prompt
        replica.reserved += prompt
        budget -= tokens
        prefill += tokens
        if tokens == prompt:
            append_completing(s, row, seat)
        else:
            replica.partial = seat
            replica.partial_left = prompt - tokens
    return prefill


@inlined
def start_segment(s, row, now, spec, prefill, uniform):
    """Start the next steps, as many as are of one kind; False if the user's step time is none."""
    replica = s.rows[row]
    serving = np.int64(replica.serving)
    if serving == 0 and replica.completing_head < 0 and replica.partial < 0:
        replica.stepping = 0
        set_next(s, row, FAR)
        return True
    replica.stepping = 1
    replica.segment_start = now
    replica.prefill = prefill
    context = replica.context + serving  # each decoding sequence writes one token
    first, growth, steps, tick = np.int64(1), np.int64(0), np.int64(1), FAR
    if spec.custom_step != 0:
        time_s = call_step(
            spec.custom_step,
            prefill,
            serving,
            context,
            spec.base_s,
            spec.prefill_s,
            spec.decode_s,
            spec.context_s,
        )
        ticks = time_s * TICKS
        if not 0.0 <= ticks < BEYOND:
            blame(s, row, BAD_STEP, prefill, serving, context, 0, 0)
            return False
        first = max(np.int64(1), np.int64(np.rint(ticks)))
        tick = now + first
    else:
        growth = spec.context * serving
        estimate = (
            np.float64(spec.base)
            + np.float64(spec.prefill) * np.float64(prefill)
            + np.float64(spec.decode) * np.float64(serving)
            + np.float64(spec.context) * np.float64(context)
        )
        if estimate < BEYOND:
            first = spec.base + spec.prefill * prefill + spec.decode * serving + spec.context * context
            first = max(first, np.int64(1))
            if uniform:
                steps = uniform_steps(s, row, spec, prefill)
                while np.float64(first) * steps + 0.5 * np.float64(growth) * steps * (steps - 1.0) >= BEYOND:
                    steps >>= 1
            tick = now + elapsed_ticks(first, growth, steps)
    replica.first_ticks = first
    replica.growth_ticks = growth
    replica.segment_steps = steps
    set_next(s, row, tick)
    return True


@inlined
def uniform_steps(s, row, spec, prefill):
    """Steps until something can change: a finish, the end of the prefill under way, the KV cache full."""
    replica = s.rows[row]
    serving = np.int64(replica.serving)
    steps = np.int64(2**40)
    if serving > 0:
        steps = s.heap[replica.heap_offset] - replica.steps
        room = spec.kv_capacity - replica.reserved - replica.context - serving
        if serving * steps > room:  # a division is dear
            steps = min(steps, room // serving + 1)
    if replica.partial >= 0 and prefill > 0:
        steps = min(steps, 1 + (replica.partial_left - 1) // prefill)
    return steps


@inlined
def boundary_batching(s, row, now, spec):
    """See `simulator.replica.batching.BatchingReplica.boundary`; False if a function of the user errs."""
    replica = s.rows[row]
    held = replica.held
    if replica.stepping:
        s.counters[EVENTS] += replica.segment_steps
        end_segment(s, row, now, replica.segment_steps)
        replica.kv_peak = max(replica.kv_peak, replica.context + replica.reserved)
        complete(s, row, now)
    else:
        s.counters[EVENTS] += 1
    preempted = preempt(s, row, now, spec.kv_capacity)
    prefill, uniform = np.int64(0), True
    if replica.partial >= 0:
        prefill = min(replica.partial_left, max(np.int64(0), spec.budget - replica.serving))
        replica.partial_left -= prefill
        if replica.partial_left == 0:
            append_completing(s, row, np.int64(replica.partial))
            replica.partial = NOBODY
    if not preempted:
        prefill = admit(s, row, now, spec, prefill)
        if prefill == RAISED:
            return False
    if preempted or replica.completing_head >= 0:
        uniform = False
    if replica.partial >= 0 and prefill != max(np.int64(0), spec.budget - replica.serving):
        uniform = False  # the user's rule made the first chunk another one than those that follow
    if spec.admission != 0 and replica.queued > 0 and replica.partial < 0:
        uniform = False  # the user's rule may think again at any boundary
    good = start_segment(s, row, now, spec, prefill, uniform)
    if replica.held != held:
        load_changed(s, row)
    return good


@inlined
def boundary_static(s, row, now, spec):
    """See `simulator.replica.static.StaticReplica.boundary`."""
    replica = s.rows[row]
    offset, held = replica.heap_offset, replica.held
    s.counters[EVENTS] += 1
    replica.steps += 1
    while replica.serving > 0 and s.heap[offset] <= now:
        seat = pop_serving(s, row)
        slot = s.slots[seat]
        replica.context -= np.int64(slot.input) + np.int64(slot.output)
        finish(s, row, seat, now)
    while replica.queued > 0 and can_start(s, row, np.int64(replica.queue_head), spec):
        seat = np.int64(replica.queue_head)
        pop_queue(s, row)
        slot = s.slots[seat]
        if slot.start == NEVER:
            slot.start = now
        inputs, outputs = np.int64(slot.input), np.int64(slot.output)
        first_tick = service_end(now, spec, inputs, np.int64(1))
        end_tick = service_end(now, spec, inputs, outputs)
        if outputs > 0 and slot.first == NEVER:
            slot.first = first_tick
        if s.counters[LOGGING]:
            log_life(s, seat, ADMITTED, now, row, inputs)
        start_serving(s, row, seat, end_tick)
        replica.context += inputs + outputs
        replica.kv_peak = max(replica.kv_peak, replica.context)
    set_next(s, row, s.heap[offset] if replica.serving > 0 else FAR)
    if replica.held != held:
        load_changed(s, row)


@inlined
def service_end(now, spec, inputs, outputs):
    """When a static service that starts now has prefilled its input and given so many tokens."""
    prefill, decode = np.float64(spec.static_prefill), np.float64(spec.static_decode)
    if np.float64(inputs) * prefill + np.float64(outputs) * decode >= BEYOND:
        return FAR
    return now + inputs * spec.static_prefill + outputs * spec.static_decode


@inlined
def can_start(s, row, seat, spec):
    replica, slot = s.rows[row], s.slots[seat]
    if spec.slots >= 0 and replica.serving >= spec.slots:
        return False
    return replica.context + np.int64(slot.input) + np.int64(slot.output) <= spec.kv_capacity


# -- routing --------------------------------------------------------------------------------------------------------


@inlined
def enqueue(s, row, seat, now, spec):
    """A replica takes a request."""
    replica, slot = s.rows[row], s.slots[seat]
    slot.next = NOBODY
    if replica.queued == 0:
        replica.queue_head = seat
    else:
        s.slots[replica.queue_tail].next = seat
    replica.queue_tail = seat
    replica.queued += 1
    replica.held += 1
    replica.outstanding += np.int64(slot.input) + np.int64(slot.output)
    load_changed(s, row)
    if s.counters[LOGGING]:
        log_life(s, seat, QUEUED, now, row, np.int64(0))
    if spec.static:
        if replica.queued == 1 and can_start(s, row, seat, spec):
            set_next(s, row, now)
    elif not replica.stepping:
        set_next(s, row, now)
    elif replica.queued == 1 and replica.partial < 0 and replica.segment_steps > 1:
        first, growth = replica.first_ticks, replica.growth_ticks
        steps = steps_until(first, growth, replica.segment_steps, now - replica.segment_start)
        if steps < replica.segment_steps:
            replica.segment_steps = steps
            set_next(s, row, replica.segment_start + elapsed_ticks(first, growth, steps))


@inlined
def choose(s, index, request, inputs, outputs):
    """Position of a replica among the ready ones of a deployment, two or more; negative if the user's router errs."""
    deployment = s.deployments[index]
    count, offset, balancer = deployment.ready_count, deployment.ready_offset, s.counters[BALANCER]
    routed = deployment.routed - 1
    if balancer <= LEAST_REQUESTS:
        return least_leaf(s.load, deployment.tree_offset, deployment.tree_size)
    if balancer == ROUND_ROBIN:
        return routed % count
    uniform = uniform_draw(s.counters[BALANCE_KEY], request)
    if balancer == RANDOM:
        return np.int64(uniform * count)
    if balancer == POWER_OF_TWO:
        scaled = uniform * count
        one = np.int64(scaled)
        other = np.int64((scaled - one) * count)
        low, high = min(one, other), max(one, other)
        less = s.rows[s.ready[offset + high]].outstanding < s.rows[s.ready[offset + low]].outstanding
        return high if less else low
    for position in range(count):
        replica = s.rows[s.ready[offset + position]]
        s.scratch[0, position] = replica.outstanding
        s.scratch[1, position] = np.int64(replica.held)
    at, step = s.scratch.ctypes.data, s.scratch.strides[0]
    position = call_router(s.counters[ROUTER_ADDRESS], at, at + np.uintp(step), count, routed, uniform, inputs, outputs)
    return position if position < count else np.int64(NOBODY)


@inlined
def route(s, seat, now):
    """Send a request to a replica, or reject it; False if the user's router errs."""
    slot = s.slots[seat]
    kind = slot.kind
    index = np.int64(NOBODY)
    if s.routes[kind] == 1 and s.shares[kind, 0] >= 1.0:
        index = s.targets[kind, 0]  # whatever is drawn
    else:
        drawn = uniform_draw(s.counters[ROUTE_KEY], slot.request)
        for position in range(s.routes[kind]):
            if drawn < s.shares[kind, position]:
                index = s.targets[kind, position]
                break
    if index < 0:
        leave(s, seat, REJECTED_UNMET, NEVER, now)
        return True
    slot.deployment = index
    deployment = s.deployments[index]
    if deployment.ready_count == 0:
        slot.replica = NOBODY
        if s.counters[CLOSED]:
            leave(s, seat, FAILED, NEVER, now)
        else:
            s.stranded[s.counters[STRANDED]] = ticket_of(s, seat)
            s.counters[STRANDED] += 1
        return True
    deployment.routed += 1
    inputs, outputs = np.int64(slot.input), np.int64(slot.output)
    position = np.int64(0)
    if deployment.ready_count > 1:
        position = choose(s, index, slot.request, inputs, outputs)
        if position < 0:
            blame(s, index, BAD_ROUTER, ticket_of(s, seat), 0, 0, 0, 0)
            return False
    row = s.ready[deployment.ready_offset + position]
    slot.replica = s.rows[row].number
    spec = s.specs[index]
    peak = inputs + outputs if spec.static else inputs + max(outputs - 1, np.int64(0))
    if peak > spec.kv_capacity:
        leave(s, seat, REJECTED_TOO_LARGE, NEVER, now)
    else:
        enqueue(s, row, seat, now, spec)
    return True


@inlined
def arrive(s, now):
    """The next request of the chunk comes in; False if the user's router errs."""
    counters = s.counters
    request, seat = counters[NEXT], counters[FREE]
    at = request - counters[CHUNK_FIRST]
    slot = s.slots[seat]
    counters[FREE] = slot.next
    kind, inputs = s.arrival_kind[at], s.arrival_input[at]
    slot.start = NEVER
    slot.first = NEVER
    slot.request = request
    slot.input = inputs
    slot.output = s.arrival_output[at]
    slot.generated = 0
    slot.preemptions = 0
    slot.replica = NOBODY
    slot.deployment = NOBODY
    slot.kind = kind
    s.ledger[request & (len(s.ledger) - 1)].outcome = IN_FLIGHT
    counters[NEXT] = request + 1
    counters[EVENTS] += 1
    s.seen[kind, 0] += 1
    s.seen[kind, 1] += inputs
    count_present(counters, now, 1)
    return route(s, seat, now)


# -- what the driver calls ------------------------------------------------------------------------------------------


@compiled
def advance(s, limit):
    """Process everything before tick `limit`; returns why it stopped."""
    counters, times = s.counters, s.times
    leaves = counters[TREE_LEAVES]
    while True:
        following = counters[NEXT]
        arrival = FAR
        if following < counters[LOADED]:
            arrival = s.arrival_tick[following - counters[CHUNK_FIRST]]
        elif counters[MORE]:
            return NEED_CHUNK
        tick = times[1]
        if arrival <= tick:
            if arrival >= limit:
                return REACHED
            if counters[FREE] < 0:
                return NEED_SLOTS
            if counters[STRANDED] >= len(s.stranded):
                return NEED_STRANDED
            if counters[LOGGING] and counters[LIFE_EVENTS] >= len(s.life):
                return NEED_LOG
            counters[KERNEL_EVENTS] += 1
            if not arrive(s, arrival):
                return BAD_ROUTER
            continue
        if tick >= limit:
            return REACHED
        row = least_leaf(times, 0, leaves)
        replica = s.rows[row]
        held = np.int64(replica.held)
        if held > replica.heap_capacity:
            counters[FAULT_ROW] = row
            return NEED_HEAP
        if counters[LOGGING] and (
            counters[LIFE_EVENTS] + 4 * held > len(s.life) or counters[SEGMENTS] >= len(s.segments)
        ):
            return NEED_LOG
        counters[KERNEL_EVENTS] += 1
        spec = s.specs[replica.deployment]
        if spec.static:
            boundary_static(s, row, tick, spec)
        elif not boundary_batching(s, row, tick, spec):
            return counters[FAULT]
        if replica.draining and replica.held == 0:
            s.drained[counters[DRAINED], 0] = row
            s.drained[counters[DRAINED], 1] = tick
            counters[DRAINED] += 1
            replica.draining = 0


@compiled
def route_again(s, ticket, now):
    """Route a request that is in the system already; False if the user's router errs."""
    return route(s, seat_of(ticket), now)


@compiled
def settle(s, row, now):
    """Account for the steps of a replica that are complete before `now`, in the middle of a segment."""
    replica = s.rows[row]
    if not replica.stepping:
        return
    first, growth, steps = replica.first_ticks, replica.growth_ticks, np.int64(0)
    if replica.segment_steps > 1:
        steps = steps_until(first, growth, replica.segment_steps, now - replica.segment_start) - 1
    s.counters[EVENTS] += steps
    end_segment(s, row, now, steps)
    if replica.partial >= 0 and steps > 0:
        replica.partial_left -= replica.prefill  # of the step that runs, as at the start of any segment
    peak = replica.context + replica.reserved + replica.serving  # the step that runs has its tokens' place already
    replica.kv_peak = max(replica.kv_peak, peak)
    replica.segment_start += elapsed_ticks(first, growth, steps)
    replica.first_ticks = first + growth * steps
    replica.segment_steps -= steps


@compiled
def evict(s, row, now, tickets):
    """Take all requests off a replica, into `tickets`: in order of admission, then of arrival; how many."""
    settle(s, row, now)
    replica = s.rows[row]
    static = s.specs[replica.deployment].static
    count = np.int64(replica.serving)
    for position in range(count - 1, -1, -1):
        seat = pop_latest(s, row)
        slot = s.slots[seat]
        if not static:
            slot.generated = slot.output - (slot.finish_step - replica.steps)
        elif slot.first > now:  # it starts over elsewhere: the static world knows no partial work
            slot.first = NEVER
        tickets[position] = ticket_of(s, seat)
    seat = np.int64(replica.completing_head)
    while seat >= 0:
        tickets[count] = ticket_of(s, seat)
        count += 1
        seat = np.int64(s.slots[seat].next)
    if replica.partial >= 0:
        tickets[count] = ticket_of(s, np.int64(replica.partial))
        count += 1
    seat = np.int64(replica.queue_head)
    for _ in range(replica.queued):
        tickets[count] = ticket_of(s, seat)
        count += 1
        seat = np.int64(s.slots[seat].next)
    if s.counters[LOGGING]:
        for position in range(count):
            seat = seat_of(tickets[position])
            tokens = np.int64(0) if static else np.int64(s.slots[seat].generated)
            log_life(s, seat, EVICTED, now, row, tokens)
    replica.partial = NOBODY
    replica.completing_head = NOBODY
    replica.queued = replica.held = replica.stepping = 0
    replica.context = replica.reserved = replica.outstanding = replica.partial_left = 0
    load_changed(s, row)
    set_next(s, row, FAR)
    return count


@compiled
def fail_request(s, ticket, now):
    """A request that no replica holds leaves unserved."""
    leave(s, seat_of(ticket), FAILED, NEVER, now)


@compiled
def first_in_flight(s):
    """The oldest request that is in flight; all before it have left."""
    mask = len(s.ledger) - 1
    done = s.counters[DONE]
    while done < s.counters[NEXT] and s.ledger[done & mask].outcome != IN_FLIGHT:
        done += 1
    s.counters[DONE] = done
    return done


@compiled
def take_out(ledger, first, outcome, deployment, replica, start, first_token, finish, preemptions):
    """Copy requests from `first` on out of the ledger into columns, as many as these are long."""
    mask = len(ledger) - 1
    for row in range(len(outcome)):
        entry = ledger[(first + row) & mask]
        outcome[row] = entry.outcome
        deployment[row] = entry.deployment
        replica[row] = entry.replica
        start[row] = entry.start
        first_token[row] = entry.first
        finish[row] = entry.finish
        preemptions[row] = entry.preemptions


@compiled
def enter_unfinished(s):
    """Enter those that are in flight at the end."""
    for seat in range(len(s.slots)):
        if s.slots[seat].request >= 0:
            enter(s, seat, IN_FLIGHT, NEVER)


@compiled
def to_the_present(s, now):
    """Bring the integral of the requests in the system up to `now`."""
    count_present(s.counters, now, 0)
