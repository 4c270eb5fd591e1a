"""Moments of the lengths of requests: what demand, steady state and capacity rows need to know of many requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MOMENTS = 6


@dataclass(frozen=True, slots=True, eq=False)
class TokenMoments:
    """Sums of 1, h, f, h f, f^2 and h^2 over requests with h prompt tokens and f output tokens, or their means.

    Attributes
    ----------
    sums
        Shape (6, ...): the moments in that order, each an array over whatever is told apart (query types, windows of
        time). A moment that nobody counted is NaN.
    """

    sums: FloatArray

    @classmethod
    def zeros(cls, *shape: int) -> "TokenMoments":
        """No requests; what comes may be added to `sums` in place."""
        return cls(np.zeros((MOMENTS, *shape)))

    @classmethod
    def means(cls, h: Any, f: Any, hf: Any, ff: Any, hh: Any = np.nan) -> "TokenMoments":
        """Means that are known, of one request each; numbers, or arrays of one shape."""
        h = np.asarray(h, dtype=np.float64)
        return cls(np.stack([np.ones_like(h), h, *(np.broadcast_to(m, h.shape) for m in (f, hf, ff, hh))]))

    @classmethod
    def of(cls, input_tokens: npt.NDArray[Any], output_tokens: npt.NDArray[Any]) -> "TokenMoments":
        """The moments of each request by itself; columns of one length."""
        h, f = input_tokens.astype(np.float64), output_tokens.astype(np.float64)
        return cls(np.stack([np.ones_like(h), h, f, h * f, f * f, h * h]))

    @classmethod
    def stacked(cls, several: Sequence["TokenMoments"]) -> "TokenMoments":
        """Moments of shape (6,), one after the other: shape (6, several)."""
        return cls(np.ascontiguousarray(np.array([one.sums for one in several]).reshape(-1, MOMENTS).T))

    @property
    def requests(self) -> FloatArray:
        """Number of requests."""
        return np.asarray(self.sums[0])

    @property
    def input_tokens(self) -> FloatArray:
        """h, prompt tokens."""
        return np.asarray(self.sums[1])

    @property
    def output_tokens(self) -> FloatArray:
        """f, output tokens."""
        return np.asarray(self.sums[2])

    @property
    def input_output(self) -> FloatArray:
        """h f."""
        return np.asarray(self.sums[3])

    @property
    def output_squared(self) -> FloatArray:
        """f^2."""
        return np.asarray(self.sums[4])

    @property
    def input_squared(self) -> FloatArray:
        """h^2; the moment that is not always counted."""
        return np.asarray(self.sums[5])

    @property
    def context_steps(self) -> FloatArray:
        """h f + f^2 / 2: tokens in the KV cache, summed over the steps of a decode in which the context grows."""
        return self.input_output + self.output_squared / 2

    def __getitem__(self, index: Any) -> "TokenMoments":
        """The moments of some entries of the first axis after that of the moments."""
        return TokenMoments(self.sums[:, index])

    def __add__(self, other: "TokenMoments") -> "TokenMoments":
        return TokenMoments(self.sums + other.sums)

    def scaled(self, factor: Any) -> "TokenMoments":
        """As many times the requests."""
        return TokenMoments(self.sums * factor)

    def total(self) -> "TokenMoments":
        """Sums over the last axis."""
        return TokenMoments(np.asarray(self.sums.sum(axis=-1)))

    def mean(self) -> "TokenMoments":
        """Means over the requests, zero where there are none."""
        count = self.requests
        return TokenMoments(np.divide(self.sums, count, out=np.zeros_like(self.sums), where=count > 0))
