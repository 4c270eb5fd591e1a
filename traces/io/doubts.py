"""Times whose unit nobody stated: where the rate of requests speaks against the one assumed, it is asked for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simulator.errors import InputError
from traces.io.reader import Asked, Block
from traces.io.times import NS_PER_UNIT

MOST_PER_S = 1000.0
"""More requests per second than this are rather of another unit."""

FEWEST_PER_S = 1 / 60
"""So are fewer, if the times are whole numbers."""

_FEWEST_ROWS = 10


def doubted(blocks: Iterator[Block], path: Path, asked: Asked, unit: str) -> Iterator[Block]:
    """The same blocks, from a file whose times since its own zero were taken to be in `unit`.

    Raises
    ------
    InputError
        At the end, if another unit makes more sense and the user has not said which it is.
    """
    rows, whole = 0, True
    first_s, last_s = np.inf, -np.inf
    for block in blocks:
        if len(block) and block.time.dtype == np.float64 and asked.time_unit is None:
            rows += len(block)
            first_s, last_s = min(first_s, block.time.min()), max(last_s, block.time.max())
            whole = whole and bool((block.time * (NS_PER_UNIT["s"] // NS_PER_UNIT[unit]) % 1 == 0).all())
        yield block
    span_s = last_s - first_s
    if rows < _FEWEST_ROWS or not span_s > 0:
        return
    rates = {other: (rows - 1) / span_s * NS_PER_UNIT[unit] / factor for other, factor in NS_PER_UNIT.items()}
    sensible = [other for other, rate in rates.items() if FEWEST_PER_S <= rate <= MOST_PER_S]
    slow = rates[unit] < FEWEST_PER_S
    if unit in sensible or (slow and not (whole and sensible)):
        return
    told = "; ".join(f"--time-unit {other}: {_rate(rates[other])}" for other in (unit, *sensible))
    raise InputError(
        f"{path}: the unit of the times is not stated, and if it is {unit} there are {rows:,} requests in "
        f"{span_s:.4g} s, {_rate(rates[unit])}; say which it is: {told}"
    )


def _rate(per_s: float) -> str:
    return f"{per_s:,.{0 if per_s >= 100 else 1}f} per second" if per_s >= 1 else f"{3600 * per_s:.3g} per hour"
