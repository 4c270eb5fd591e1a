"""Simulated time in integer ticks, so that two engines agree to the bit.

One tick is 2^-40 s (0.9 ps). Seconds times a power of two are exact in binary, so rounding happens in one place: here.
"""

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

TICKS_PER_S = 2**40

MAX_TICKS = 2**62 - 1
"""Longest time that can be stated, just below 2^22 s = 48.5 days: the sum of two times cannot overflow int64."""

_LIMIT_S = 2.0**22


def to_ticks(seconds: float) -> int:
    """Ticks nearest to a time or duration (halves to even).

    Raises
    ------
    InputError
        If the time is negative, not finite, or longer than `MAX_TICKS`.
    """
    if not 0 <= seconds < _LIMIT_S:
        raise _out_of_range(seconds)
    return round(seconds * TICKS_PER_S)


def to_ticks_array(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """`to_ticks` of every element, with the same rounding and the same limits."""
    outside = ~((seconds >= 0) & (seconds < _LIMIT_S))  # written so that NaN is outside
    if outside.any():
        raise _out_of_range(float(seconds[outside][0]))
    return np.rint(seconds * TICKS_PER_S).astype(np.int64)


def to_seconds(ticks: int) -> float:
    """Seconds of a number of ticks, exact below 2^53 ticks (2.3 h) and nearest beyond."""
    return ticks / TICKS_PER_S


def _out_of_range(seconds: float) -> InputError:
    return InputError(
        f"a simulated time is {seconds:g} s, expected 0 to {_LIMIT_S:.0f} s ({_LIMIT_S / 86400:.1f} days), "
        "the most that 64-bit ticks of 2^-40 s hold: split a longer run"
    )
