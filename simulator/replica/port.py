"""The port of service disciplines: how a replica serves what it holds, and what planners may expect.

A replica is a passive state machine that the engine wakes at boundaries. It knows the requests it holds, its KV cache
and the tick of its next boundary; it knows neither SimPy nor the fleet. The order of things inside a boundary is part
of the contract of a discipline, because the compiled engine must agree with the reference to the bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from simulator.catalog import Catalog, kv_capacity_tokens
from simulator.catalog.configuration import DeploymentKey
from simulator.delay.port import DelayModel, StepCost, StepTicks, TwoPhaseDelay
from simulator.errors import InputError
from simulator.moments import FloatArray, TokenMoments
from simulator.planning.problem import CapacityRows
from simulator.replica.extension import Admission, CustomStep
from simulator.replica.tokenlog import Recorder

NEVER = -(2**63)  # tick of something that did not happen; written as null, never as a number


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """What the engine must know of one replica of a configuration. Times are ticks of 2^-40 s (`simulator/ticks.py`).

    Attributes
    ----------
    step
        Cost of an engine step (`batching`).
    prefill_ticks_per_token, decode_ticks_per_token
        The two-phase delay of a request (`static`).
    kv_capacity_tokens
        Tokens that the KV cache holds.
    token_budget
        Most tokens, decode and prefill together, that one step takes (`batching`; chunked prefill).
    slots
        Most requests in service at once (disciplines that are `slotted`), None where the KV cache is the only limit.
    step_time
        A user's own step time instead of `step` (`batching`).
    admission
        A user's own rule instead of first come first served (`batching`).
    """

    discipline: "Discipline"
    step: StepTicks
    prefill_ticks_per_token: int
    decode_ticks_per_token: int
    kv_capacity_tokens: int
    token_budget: int = 2048
    slots: int | None = None
    step_time: CustomStep | None = None
    admission: Admission | None = None


class RequestBook:
    """Input and outcome of every request, as columns indexed by request number.

    `first_token_tick` and `finish_tick` are NEVER until they happen; `generated` counts the output tokens that a
    preempted or re-queued request had when it was last taken off a replica. `recorder` is there only if a log was asked
    for.
    """

    __slots__ = (
        "finish_tick",
        "first_token_tick",
        "generated",
        "input_tokens",
        "output_tokens",
        "preemptions",
        "recorder",
        "start_tick",
    )

    def __init__(self) -> None:
        self.input_tokens: list[int] = []
        self.output_tokens: list[int] = []
        self.start_tick: list[int] = []
        self.first_token_tick: list[int] = []
        self.finish_tick: list[int] = []
        self.generated: list[int] = []
        self.preemptions: list[int] = []
        self.recorder: Recorder | None = None

    def extend(self, input_tokens: list[int], output_tokens: list[int]) -> None:
        """Take in requests that have not happened yet."""
        size = len(input_tokens)
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.start_tick += [NEVER] * size
        self.first_token_tick += [NEVER] * size
        self.finish_tick += [NEVER] * size
        self.generated += [0] * size
        self.preemptions += [0] * size

    def peak_kv_tokens(self, request: int) -> int:
        """KV tokens just before the request finishes: the last token's own entry is never written."""
        return self.input_tokens[request] + max(self.output_tokens[request] - 1, 0)

    def total_tokens(self, request: int) -> int:
        return self.input_tokens[request] + self.output_tokens[request]


class Service(Protocol):
    """What the fleet sees of a replica, in any engine."""

    @property
    def outstanding_tokens(self) -> int:
        """Input and output tokens of the unfinished requests it holds."""
        ...

    @property
    def held(self) -> int:
        """Unfinished requests it holds."""
        ...

    @property
    def kv_peak_tokens(self) -> int:
        """Most KV tokens ever in use."""
        ...

    @property
    def preemptions(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def evict(self, now: int) -> list[int]:
        """Give up every unfinished request, in order of admission, then of arrival, and be idle."""
        ...


class Replica(Service, Protocol):
    """What the reference engine asks of a replica."""

    next_tick: int | None  # tick of the next boundary, None while idle

    def fits(self, request: int) -> bool:
        """Whether the request could ever be served here."""
        ...

    def enqueue(self, request: int, now: int) -> None:
        """Take a request; sets `next_tick` to `now` if it could start at once."""
        ...

    def boundary(self, now: int) -> list[int]:
        """Complete what is due at `now`, start what can start, set `next_tick`; return the finished requests."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NominalReplica:
    """One replica of a deployment as planners see it: `ReplicaSpec` in seconds, in a world that is as stated.

    Attributes
    ----------
    step
        Cost of an engine step.
    request_delay
        The two-phase delay of a request.
    kv_capacity_tokens, token_budget, slots
        As in `ReplicaSpec`.
    """

    step: StepCost
    request_delay: TwoPhaseDelay
    kv_capacity_tokens: int
    token_budget: int
    slots: int | None = None

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        delay_model: DelayModel,
        key: DeploymentKey,
        *,
        memory_utilisation: float,
        token_budget: int,
        slots: int | None = None,
    ) -> Self:
        """Put catalog and delay model together."""
        hardware = catalog.models[key.model], catalog.tiers[key.tier], key.tensor_parallel, key.pipeline_parallel
        return cls(
            step=delay_model.step_cost(*hardware),
            request_delay=delay_model.request_delay(*hardware),
            kv_capacity_tokens=kv_capacity_tokens(*hardware, memory_utilisation),
            token_budget=token_budget,
            slots=slots,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TypeLoad:
    """What of one query type is routed to a deployment.

    Attributes
    ----------
    rate_per_s
        Arrivals at the whole deployment.
    tokens
        Means of the lengths, shape (6,). Where E[h^2] is not known, prompts are taken to vary as the discipline says.
    inverse_output
        E[1 / (f - 1)] over requests with two tokens of output or more. It matters where many answers are far shorter
        than a log-normal has them.
    """

    rate_per_s: float
    tokens: TokenMoments
    inverse_output: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What requests see of a deployment at a load; times are means over requests, infinite where its queue grows for
    ever, NaN where there are no requests. `load` is the share of a replica's time that work takes.
    """

    replicas: int
    requests_per_s: float
    load: float
    tpot_s: float
    delay_s: float


class Discipline(ABC):
    """How replicas serve the requests they hold. To add one: a module here and its line in `registry.py`.

    Attributes
    ----------
    name
        How scenario files call it.
    kernel
        How `simulator/replica/kernel.py` knows it (`SPEC["static"]`). None where the kernel does not have it: the
        compiled engine then refuses it, and the reference engine runs it.
    capacity_rows
        The rows of planning problems that mean what it does.
    queues
        Whether the times of requests depend on the load, as `expected` tells them.
    slotted
        Whether it heeds `slots`.
    """

    name: ClassVar[str]
    kernel: ClassVar[int | None]
    capacity_rows: ClassVar[CapacityRows]
    queues: ClassVar[bool]
    slotted: ClassVar[bool]

    @abstractmethod
    def replica(self, number: int, spec: ReplicaSpec, book: RequestBook) -> Replica:
        """An idle replica for the reference engine: the definition of the discipline."""

    @abstractmethod
    def work_s(self, replica: NominalReplica, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
        """What each request takes of the time of one replica [replica seconds]; columns of one length."""

    @abstractmethod
    def planned_work_s(self, replica: NominalReplica, tokens: TokenMoments) -> FloatArray:
        """The work of requests by their moments, as the capacity rows count it: a sum of sums, a mean of means."""

    @abstractmethod
    def token_work_s(self, replica: NominalReplica) -> tuple[float, float]:
        """What a token of a prompt and a token of an answer add to the work, whatever the others."""

    @abstractmethod
    def share_for_work(self, replica: NominalReplica, tpot_s: Any) -> Any:
        """Share of a replica's time that work may take where a token may take `tpot_s` (infinite: no limit)."""

    @abstractmethod
    def expected(self, replica: NominalReplica, replicas: int, loads: Sequence[TypeLoad]) -> Expected:
        """What a deployment shows on average under a load that stays."""


def no_kernel(discipline: Discipline) -> InputError:
    """What an engine says that knows disciplines by their kernels alone."""
    return InputError(
        f"the compiled engine cannot run discipline {discipline.name!r}, which has no kernel: --engine reference can"
    )
