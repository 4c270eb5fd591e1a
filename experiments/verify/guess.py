"""First guesses of the headroom, from theory: how far above its mean will the load of a deployment be now and then?

The load limit of a replica is one on the work that is in service, which a request adds to for its residence time w. At
the percentile p of the requests of a type that load is M times its mean; demand may then fill 1 / M of the limit
(`cap`), M being that of the type which meets the highest peaks: its own bursts.

A, square-root staffing: over a window w the work that arrives has the mean L w, L = sum lam v, and the variance
w sum I lam E[v^2], with the index of dispersion I of the arrivals of each type (1 for Poisson), so that

    M = 1 + z_p sqrt(sum I lam E[v^2] / w) / L

C, the real sequence: each request's work is laid evenly over the w after its arrival; M is the percentile of that load,
as the requests meet it on arrival, over its mean.

A is smooth and knows nothing of how bursts follow one another, so it starts where arrivals are Poisson-like; C starts
where they are not. A holds for the mix of types that a deployment serves (of one that no plan has yet: of all demand
which may go there), because independent types pool. C holds for each type by itself: its requests meet the peaks of
its own bursts and the mean of the others, so that each type's load counts by its own peak.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from experiments.scenario.scenario import Scenario
from experiments.verify.sample import OfType, Sample
from simulator.catalog.configuration import Configuration
from simulator.delay import StepCost
from simulator.planning.batching_rows import RESIDUAL_STEPS

FloatArray = npt.NDArray[np.float64]

POISSON_LIKE = 1.5  # index of dispersion up to which arrivals count as Poisson
LEAST_CAP = 0.02
GRID = 4  # points of the real sequence per window


class Guess(StrEnum):
    """Where the headroom of a first plan comes from."""

    STAFFING = "staffing"  # A
    SEQUENCE = "sequence"  # C
    NONE = "none"  # plans fill their replicas to the limit
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Peak over mean of the load [M] of one configuration for a mix of types, and the window it was taken over."""

    factor: float
    window_s: float

    @property
    def cap(self) -> float:
        return max(LEAST_CAP, min(1.0, 1.0 / self.factor))


def residence_s(step: StepCost, of_type: OfType, tpot_s: float) -> float:
    """Mean stay of a request where a token takes `tpot_s`: half a step, the prefill, the decode."""
    prefill_s = (1 + RESIDUAL_STEPS) * tpot_s + step.prefill_s_per_token * float(of_type.inputs.mean())
    return prefill_s + max(0.0, float(of_type.outputs.mean()) - 1) * tpot_s


def window_of(scenario: Scenario, sample: Sample, configuration: Configuration, share: FloatArray) -> float:
    """Residence time of the mix, by the work of the types; at the operating point, or the slowest of the scenario."""
    step = scenario.step_cost(configuration.deployment_key)
    tpot_s = configuration.tpot_target_s or max(scenario.tpot_targets_s)
    weights, stays = [], []
    for of_type, part in zip(sample.types, share.tolist(), strict=True):
        if part > 0 and len(of_type):
            weights.append(part * float(of_type.work_s(step).sum()))
            stays.append(residence_s(step, of_type, tpot_s))
    return float(np.average(stays, weights=weights)) if sum(weights) > 0 else 1.0


def peak(
    guess: Guess, scenario: Scenario, sample: Sample, configuration: Configuration, share: FloatArray, level: float
) -> Peak:
    """Peak over mean of what a configuration gets.

    Parameters
    ----------
    share
        Shape (types,): of each type's requests that go there.
    level
        Percentile of the requests.
    """
    window_s = window_of(scenario, sample, configuration, share)
    mix = [
        (of_type, part) for of_type, part in zip(sample.types, share.tolist(), strict=True) if part > 0 and len(of_type)
    ]
    if guess is Guess.NONE or not mix:
        return Peak(factor=1.0, window_s=window_s)
    step = scenario.step_cost(configuration.deployment_key)
    if guess is Guess.STAFFING:
        return Peak(factor=_staffing(step, mix, sample.horizon_s, window_s, level), window_s=window_s)
    return Peak(factor=_sequence(step, mix, sample.horizon_s, window_s, level), window_s=window_s)


def _staffing(
    step: StepCost, mix: list[tuple[OfType, float]], horizon_s: float, window_s: float, level: float
) -> float:
    load, variance = 0.0, 0.0
    for of_type, part in mix:
        work = of_type.work_s(step)
        load += part * float(work.sum()) / horizon_s
        dispersion = 1 + part * (index_of_dispersion(of_type.arrival_s, horizon_s, window_s) - 1)  # of thinned arrivals
        variance += max(dispersion, 0.0) * part * float((work**2).sum()) / horizon_s / window_s
    from scipy.special import ndtri  # here: SciPy takes longer to load than most commands

    return 1.0 + float(ndtri(level)) * float(np.sqrt(variance)) / load


def _sequence(
    step: StepCost, mix: list[tuple[OfType, float]], horizon_s: float, window_s: float, level: float
) -> float:
    """The load on a grid, and its percentile over the requests of each type; a request meets that of its point."""
    grid_s = np.arange(0.0, horizon_s + window_s, window_s / GRID)
    load, met = np.zeros(len(grid_s)), []
    for of_type, part in mix:
        done = np.concatenate([[0.0], np.cumsum(of_type.work_s(step))])
        upto = np.searchsorted(of_type.arrival_s, grid_s, side="right")
        since = np.searchsorted(of_type.arrival_s, grid_s - window_s, side="right")
        load += part * (done[upto] - done[since]) / window_s
        met.append(np.diff(np.concatenate([upto, [len(of_type)]])))
    mean = float(load.sum() * window_s / GRID / horizon_s)
    order = np.argsort(load)
    places = [np.searchsorted(np.cumsum(count[order]), level * count.sum()) for count in met]
    return max(1.0, float(load[order[min(int(max(places)), len(order) - 1)]]) / mean)


def index_of_dispersion(arrival_s: FloatArray, horizon_s: float, window_s: float) -> float:
    """Variance over mean of the arrivals in windows of this length: 1 for Poisson."""
    windows = max(2, int(horizon_s / window_s))
    counts = np.bincount((arrival_s * (windows / horizon_s)).astype(np.int64), minlength=windows)[:windows]
    return float(counts.var() / counts.mean()) if counts.any() else 1.0


def choose(sample: Sample) -> Guess:
    """A where the arrivals of all types together are Poisson-like over ten seconds, C where they are bursty."""
    arrival_s = np.sort(np.concatenate([of_type.arrival_s for of_type in sample.types]))
    bursty = index_of_dispersion(arrival_s, sample.horizon_s, 10.0) > POISSON_LIKE
    return Guess.SEQUENCE if bursty else Guess.STAFFING
