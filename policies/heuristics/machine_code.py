"""Loops of the planners in machine code, by Numba.

With its types stated a function is compiled, or read from Numba's cache, when its module is loaded: in nobody's time
limit. Where there is no folder that the cache may use it is compiled in every process, which takes some seconds.
"""

from collections.abc import Callable
from typing import Any

from numba import njit, vectorize

Decorator = Callable[[Callable[..., Any]], Any]


def compiled(signature: Any) -> Decorator:
    """`numba.njit` for arguments of these types."""
    return lambda function: _with_cache(lambda cache: njit(signature, cache=cache, error_model="numpy")(function))


def for_each(signature: Any) -> Decorator:
    """`numba.vectorize`: a function of numbers of these types for arrays of any shape."""
    return lambda function: _with_cache(lambda cache: vectorize([signature], cache=cache)(function))


def _with_cache(make: Callable[[bool], Any]) -> Any:
    try:
        return make(True)
    except RuntimeError:  # no folder that the cache may use
        return make(False)
