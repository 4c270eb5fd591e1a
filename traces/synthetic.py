"""Synthetic traces that resemble a real one, for where no file is at hand.

Arrivals are a doubly stochastic Poisson (Cox) process: the rate of a source is its mean rate times independent factors
(`RateComponent`), each at its own time scale, so that counts are as over-dispersed as in the real trace. Token counts
have the real quantiles and, by a Gaussian copula, the real rank correlation of input and output. What is lost: order
within bursts below a second, any dependence of input and output beyond their rank correlation (the mean product of the
conversations comes out 14 % too large), and any dependence of tokens on time.
"""

import itertools
import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from simulator.errors import InputError
from simulator.rng import stream
from simulator.workload import Trace, merge_traces
from traces.profile import Profile, RateComponent, SourceProfile, list_profiles, load_profile

__all__ = [
    "NORMAL_HORIZON_S",
    "Profile",
    "embedded_hour",
    "list_profiles",
    "load_profile",
    "model_dispersion",
    "synthesise",
]

NORMAL_HORIZON_S = 3600.0
"""The random rate is scaled so that its average over this time, or over a longer trace, is the mean rate exactly."""


def synthesise(profile: Profile, *, duration_s: float, seed: int, rate_factor: float = 1.0) -> Trace:
    """Generate a trace of all sources of a profile.

    A trace shorter than an hour is the beginning of the hour of the same seed.

    Parameters
    ----------
    duration_s
        Arrivals fall in [0, duration_s).
    rate_factor
        Multiplies the arrival rates; the time scales of the bursts stay.

    Returns
    -------
    Trace
        Without a wall-clock start; times are multiples of 100 ns as in the Azure trace.

    Raises
    ------
    InputError
        If the duration or the factor is not a finite number above zero.
    """
    for name, value in (("duration_s", duration_s), ("rate_factor", rate_factor)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name}: expected a finite number above zero, found {value}")
    traces = []
    for source in profile.sources:
        prefix = f"traces/{profile.name}/{source.name}"
        arrival_s = _arrivals(source, duration_s, seed, prefix, rate_factor)
        input_tokens, output_tokens = _tokens(profile, source, len(arrival_s), seed, prefix)
        traces.append(
            Trace(
                sources=(source.name,),
                arrival_s=arrival_s,
                source=np.zeros(len(arrival_s), dtype=np.int32),
                input_tokens=input_tokens,
                output_tokens=output_tokens,
            )
        )
    return merge_traces(traces)


def embedded_hour(seed: int = 0) -> Trace:
    """One hour like the Azure trace of 2023: sources `conv` and `code`."""
    return synthesise(load_profile(), duration_s=3600.0, seed=seed)


def model_dispersion(
    rate_per_s: float, modulation: tuple[RateComponent, ...], window_s: float, duration_s: float = NORMAL_HORIZON_S
) -> float:
    """Index of dispersion of counts that the model implies within one trace of a given duration.

    Of a Cox process it is `1 + rate * window * V(window)`, `V(w)` being the variance of the relative rate averaged over
    w. Within one trace, whose own mean takes the place of the expected one, `V(window) - V(duration)` is what is seen
    on average. Source: Cox and Isham, Point Processes (1980), section 3.3.
    """
    seen = _variance_of_average(modulation, window_s) - _variance_of_average(modulation, duration_s)
    return 1 + rate_per_s * window_s * seen


def _variance_of_average(modulation: tuple[RateComponent, ...], window_s: float) -> float:
    """Variance of the product of all factors averaged over a window.

    The product's autocovariance, prod(1 + v_k exp(-lag / T_k)) - 1, is a sum of exponentials, one per subset of the
    factors, whose average over a window has a closed form.
    """
    total = 0.0
    for size in range(1, len(modulation) + 1):
        for subset in itertools.combinations(modulation, size):
            x = window_s * sum(1 / component.time_scale_s for component in subset)
            total += math.prod(component.squared_cv for component in subset) * 2 * (x + math.expm1(-x)) / x**2
    return total


def _arrivals(
    source: SourceProfile, duration_s: float, seed: int, prefix: str, rate_factor: float
) -> npt.NDArray[np.float64]:
    """Arrival times: a Poisson process of rate one on the clock of the cumulative rate, read back in seconds."""
    horizon_s = max(duration_s, NORMAL_HORIZON_S)
    factors = [
        _levels(component, horizon_s, stream(seed, f"{prefix}/modulation/{k}"))
        for k, component in enumerate(source.modulation)
    ]
    edges_s = np.unique(np.concatenate([[0.0, horizon_s], *(times_s for times_s, _ in factors)]))
    level = np.ones(len(edges_s) - 1)
    for times_s, levels in factors:
        level *= levels[np.searchsorted(times_s, edges_s[:-1], side="right") - 1]
    cumulative = np.concatenate([[0.0], np.cumsum(level * np.diff(edges_s))])
    if cumulative[-1] == 0:  # silence from end to end
        return np.empty(0)
    rng = stream(seed, f"{prefix}/arrivals")
    count = rng.poisson(source.rate_per_s * rate_factor * horizon_s)
    clock = np.sort(rng.random(count)) * cumulative[-1]
    arrival_s: npt.NDArray[np.float64] = np.round(np.interp(clock, cumulative, edges_s), 7)
    return arrival_s[arrival_s < duration_s]


def _levels(
    component: RateComponent, horizon_s: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times, beginning with zero, from which the factor has each level, and the levels up to a constant."""
    draws = rng.poisson(horizon_s / component.time_scale_s)
    times_s = np.concatenate([[0.0], np.sort(rng.random(draws)) * horizon_s])
    # Silence alone has 1 + squared_cv = 1 / on_share; a log-normal level multiplies this by the exponential of the
    # variance of its logarithm. The mean is left out: the caller scales the product of all factors.
    log_variance = max(math.log((1 + component.squared_cv) * component.on_share), 0.0)
    level = np.exp(math.sqrt(log_variance) * rng.standard_normal(draws + 1))
    return times_s, np.where(rng.random(draws + 1) < component.on_share, level, 0.0)


def _tokens(
    profile: Profile, source: SourceProfile, count: int, seed: int, prefix: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Input and output tokens from the quantiles, joined by a Gaussian copula."""
    # The correlation of the normal variables that gives this rank correlation (Pearson, 1907).
    correlation = 2 * math.sin(math.pi * source.spearman / 6)
    normal = stream(seed, f"{prefix}/tokens").standard_normal((count, 2))
    normal[:, 1] = correlation * normal[:, 0] + math.sqrt(1 - correlation**2) * normal[:, 1]
    uniform = ndtr(normal)
    columns = [
        np.rint(np.interp(uniform[:, k], profile.quantile_levels, quantiles)).astype(np.int32)
        for k, quantiles in enumerate((source.input_tokens, source.output_tokens))
    ]
    return columns[0], columns[1]
