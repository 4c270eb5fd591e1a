"""A user's own functions in the engine: step time, batching (admission) and routing.

Each is given as `path/to/file.py:function`, or as a function. Decorated with `numba.njit` it runs in the compiled
engine, called through its address, so that nothing of tokenfleet is compiled anew; as plain Python it runs in the
reference engine, which is slower. Both engines call the same machine code of an `njit` function, so that they agree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.delay.port import StepCost
from simulator.errors import InputError, RunError
from simulator.ticks import MAX_TICKS, TICKS_PER_S

StepTime = Callable[[int, int, int, float, float, float, float], float]
"""`step_time(prefill_tokens, sequences, context_tokens, base_s, prefill_s_per_token, decode_s_per_sequence,
context_s_per_token)` gives the duration of one step in seconds, at least 0. The last four are the coefficients of the
deployment as its delay model states them (`StepCost`), slowed by the world's delay factor."""

Admission = Callable[[int, int, int, int, int], int]
"""`admit(prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting)` is asked at each boundary about the head of
the queue, and again about the next head as long as it admits whole prompts: it gives the tokens of this prompt that the
step prefills. Below 0: the request waits. Otherwise it is admitted, its whole prompt is reserved in the KV cache, and
what the step does not prefill follows in the next steps, with all that the token budget leaves. `free_kv_tokens`,
`budget_tokens` (both may be below 0) and `sequences` (in decode) are those at that moment, `waiting` counts the queue
with its head."""

Router = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], int, float, int, int], int]
"""`choose(outstanding_tokens, held, routed, uniform, input_tokens, output_tokens)` gives the index of a replica among
the ready ones of the deployment, in order of their number. The first two arrays hold one entry per replica and must not
be changed; `routed` counts the requests sent to the deployment before this one, `uniform` is this request's own random
number in [0, 1)."""


RAISED = -(2**62)
"""What an admission rule in the kernel gives that raises."""


@dataclass(frozen=True, slots=True)
class CustomStep:
    """A user's step time with the coefficients of a deployment."""

    function: StepTime
    cost: StepCost

    def ticks(self, prefill_tokens: int, sequences: int, context_tokens: int) -> int:
        """Duration of a step, at least one tick.

        Raises
        ------
        RunError
            If the function raises or gives a time that is none.
        """
        cost = self.cost
        time_s: float = _ask(
            "step time",
            self.function,
            prefill_tokens,
            sequences,
            context_tokens,
            cost.base_s,
            cost.prefill_s_per_token,
            cost.decode_s_per_sequence,
            cost.context_s_per_token,
        )
        if not 0 <= time_s * TICKS_PER_S <= MAX_TICKS:
            raise RunError(
                f"step time {name_of(self.function)}: gave {time_s!r} s for {prefill_tokens} prefill tokens, "
                f"{sequences} sequences and {context_tokens} context tokens, expected 0 or more"
            )
        return max(1, round(time_s * TICKS_PER_S))


def ask_admission(function: Admission, prompt: int, room: int, budget: int, sequences: int, waiting: int) -> int:
    """Ask a user's rule; RunError if it raises."""
    tokens: int = _ask("admission", function, prompt, room, budget, sequences, waiting)
    return tokens


def ask_router(
    function: Router,
    outstanding_tokens: npt.NDArray[np.int64],
    held: npt.NDArray[np.int64],
    routed: int,
    uniform: float,
    input_tokens: int,
    output_tokens: int,
) -> int:
    """Ask a user's router; RunError if it raises or chooses a replica that there is not."""
    index: int = _ask("router", function, outstanding_tokens, held, routed, uniform, input_tokens, output_tokens)
    if not 0 <= index < len(held):
        raise RunError(
            f"router {name_of(function)}: chose replica {index} of {len(held)}, expected 0 or more and less than that"
        )
    return index


def _ask(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise RunError(f"{what} {name_of(function)}: raised {type(error).__name__}: {error}") from error


def name_of(function: Callable[..., object]) -> str:
    return str(getattr(function, "__name__", function))


def is_compiled(function: Callable[..., object]) -> bool:
    """Whether a function was decorated with `numba.njit`."""
    return hasattr(function, "py_func") and hasattr(function, "overloads")


# -- addresses of compiled functions: what the kernel calls ---------------------------------------------------------

_KEPT: dict[object, Any] = {}  # the machine code of an address lives as long as this


def address_of_step_time(function: StepTime) -> int:
    """Address of a C function for `simulator.replica.kernel.call_step`."""
    return _address(function, "float64(int64, int64, int64, float64, float64, float64, float64)", _as_step_time)


def address_of_admission(function: Admission) -> int:
    """Address of a C function for `simulator.replica.kernel.call_admission`."""
    return _address(function, "int64(int64, int64, int64, int64, int64)", _as_admission)


def address_of_router(function: Router) -> int:
    """Address of a C function for `simulator.replica.kernel.call_router`."""
    signature = "int64(CPointer(int64), CPointer(int64), int64, int64, float64, int64, int64)"
    return _address(function, signature, _as_router)


def _address(function: Callable[..., Any], signature: str, wrap: Callable[[Any], Any]) -> int:
    import numba
    from numba.core.errors import NumbaError

    if function not in _KEPT:
        try:
            _KEPT[function] = numba.cfunc(signature)(wrap(function))
        except NumbaError as error:
            raise InputError(f"{name_of(function)}: cannot be compiled as {signature}: {error}") from None
    address: int = _KEPT[function].address
    return address


# A C function cannot raise: it gives what the kernel takes for a fault, and the driver then asks again in Python.


def _as_step_time(function: Any) -> Any:
    def step_time(p, n, c, a, b, d, e):  # type: ignore[no-untyped-def]
        try:
            return float(function(p, n, c, a, b, d, e))
        except Exception:
            return np.nan

    return step_time


def _as_admission(function: Any) -> Any:
    def admit(prompt, room, budget, sequences, waiting):  # type: ignore[no-untyped-def]
        try:
            return function(prompt, room, budget, sequences, waiting)
        except Exception:
            return RAISED

    return admit


def _as_router(function: Any) -> Any:
    import numba

    def choose(outstanding, held, count, routed, uniform, h, f):  # type: ignore[no-untyped-def]
        try:
            return function(numba.carray(outstanding, count), numba.carray(held, count), routed, uniform, h, f)
        except Exception:
            return -1

    return choose
