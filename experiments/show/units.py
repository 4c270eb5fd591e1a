"""Units and ticks that suit what is shown."""

import math
from collections.abc import Sequence

CLOCK_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def clock(span_s: float) -> tuple[float, str]:
    """Seconds of the unit of time that suits a span, and its name: the largest of which it has more than five."""
    return next(((size, unit) for size, unit in CLOCK_UNITS if span_s > 5 * size), CLOCK_UNITS[-1])


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers between the least and the greatest of some positive ones: 1, 2 and 5 times powers of ten.

    None where these span two powers of ten: those are then enough, and any axis has them of itself.
    """
    values = [value for value in values if value > 0]
    if not values or max(values) >= 100 * min(values):
        return []
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
