"""The index of dispersion of counts that a profile implies: what its burst model is fitted by."""

import itertools
import math

from traces.synthetic.profile import RateComponent
from traces.synthetic.ratecurve import HOUR_S


def model_dispersion(
    rate_per_s: float,
    modulation: tuple[RateComponent, ...],
    window_s: float,
    duration_s: float = HOUR_S,
    *,
    follow_share: float = 0.0,
    follow_delay_s: float = 0.0,
) -> float:
    """Index of dispersion of counts that the model implies within one trace of a given duration.

    Of a Cox process it is `1 + rate * window * V(window)`, `V(w)` being the variance of the relative rate averaged over
    w. Within one trace, whose own mean takes the place of the expected one, `V(window) - V(duration)` is what is seen
    on average. Requests that follow others put the index of their clusters in the place of the one. Source: Cox and
    Isham, Point Processes (1980), section 3.3.
    """
    seen = _variance_of_average(modulation, window_s) - _variance_of_average(modulation, duration_s)
    return _cluster_index(follow_share, follow_delay_s, window_s) + rate_per_s * window_s * seen


def _cluster_index(share: float, delay_s: float, window_s: float) -> float:
    """Index of dispersion of clusters whose sizes are geometric and whose gaps are exponential.

    A request is followed by the next of its cluster with probability `share`, so that the followers of one, near and
    far, have the density `share / delay * exp(-(1 - share) t / delay)`.
    """
    if share == 0 or delay_s == 0:
        return (1 + share) / (1 - share)
    x = window_s * (1 - share) / delay_s
    return 1 + 2 * share / (1 - share) * (1 + math.expm1(-x) / x)


def _variance_of_average(modulation: tuple[RateComponent, ...], window_s: float) -> float:
    """Variance of the product of all factors averaged over a window.

    The product's autocovariance, prod(1 + v_k exp(-lag / T_k)) - 1, is a sum of exponentials, one per subset of the
    factors, whose average over a window has a closed form.
    """
    total = 0.0
    for size in range(1, len(modulation) + 1):
        for subset in itertools.combinations(modulation, size):
            x = window_s * math.fsum(1 / component.time_scale_s for component in subset)
            total += math.prod(component.squared_cv for component in subset) * 2 * (x + math.expm1(-x)) / x**2
    return total
