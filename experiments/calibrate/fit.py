"""The constants of one tier, fitted to measured step times.

Every constant is positive and is fitted as its logarithm, by least squares on the relative errors of the steps, with a
robust loss (soft L1 beyond 5 %). Each has a prior: what such hardware usually reaches, and how widely that varies.
Hundreds of rows outweigh a prior; a constant that the rows do not tell keeps it, and the fit says so. Shares of peaks
are bounded by one.

Priors are assumed. They are what this project's own fits to A100, H100 and L40S came to, rounded, with a generous
spread.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from simulator.catalog import Communication, Interconnect, PhaseError, RooflineConstants
from simulator.delay.roofline import DEGREES, Load, Shape, parts

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SCALE = 0.05  # relative error at which the loss turns from square to linear
PART_WEIGHT = 0.5  # of the error of the all-reduces, where a row states them, beside that of its step
TOLD = 0.9  # a constant is told by the rows if its spread shrinks below this share of the prior's
LEAST_SHARE = 0.01
LEAST_ROWS = 3

SHARES = ("compute_share", "bandwidth_share", "attention_compute_share", "attention_bandwidth_share")


@dataclass(frozen=True, slots=True)
class Prior:
    """Value and spread (standard deviation of the logarithm)."""

    value: float
    spread: float


PRIORS: dict[str, Prior] = {
    "compute_share": Prior(0.65, 0.4),
    "bandwidth_share": Prior(0.8, 0.2),
    "sharpness": Prior(3.0, 0.3),
    "activation_passes": Prior(4.0, 1.0),
    "attention_compute_share": Prior(0.5, 0.4),
    "attention_bandwidth_share": Prior(0.8, 0.2),
    "step_s": Prior(2e-5, 0.5),
    "layer_s": Prior(25e-6, 1.0),
    "sequence_layer_s": Prior(2e-8, 1.5),
    "prompt_layer_s": Prior(2e-5, 2.0),
}


@dataclass(frozen=True, slots=True)
class Link:
    """Prior of one constant of communication: at TP 2, its change with each doubling, and what a degree may deviate.

    A latency grows by `step` seconds with each doubling; a bandwidth by the factor e^step.
    """

    value: float
    spread: float
    step: float
    step_spread: float
    deviation: float


LINKS: dict[Interconnect, dict[str, Link]] = {
    Interconnect.NVLINK: {
        "latency_s": Link(5e-6, 1.0, 1.5e-6, 1.0, 0.1),
        "gb_per_s": Link(200.0, 0.5, 0.1, 0.15, 0.1),
        "prompt_latency_s": Link(25e-6, 1.0, 5e-6, 1.0, 0.1),
        "prompt_gb_per_s": Link(200.0, 0.5, 0.15, 0.15, 0.1),
        "prompt_large_gb_per_s": Link(200.0, 0.5, 0.15, 0.15, 0.1),
    },
    # Over PCIe every degree has a bandwidth of its own: it depends on how many bridges and sockets are crossed.
    Interconnect.PCIE: {
        "latency_s": Link(5e-6, 1.0, 5e-6, 1.0, 0.3),
        "gb_per_s": Link(10.0, 1.0, -1.0, 1.0, 0.5),
        "prompt_latency_s": Link(25e-6, 1.0, 5e-6, 1.0, 0.3),
        "prompt_gb_per_s": Link(10.0, 1.0, -1.0, 1.0, 0.5),
        "prompt_large_gb_per_s": Link(10.0, 1.0, -1.0, 1.0, 0.5),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Measured steps of one tier: arrays of one length.

    `all_reduce_s` is None where the rows state no parts.
    """

    shape: Shape
    load: Load
    step_s: FloatArray
    all_reduce_s: FloatArray | None
    prefill: BoolArray
    tensor_parallel: npt.NDArray[np.int64]
    model: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.step_s)

    def rows(self, which: BoolArray) -> "Steps":
        """The steps that a boolean mask selects."""
        return Steps(
            shape=Shape(**{name: getattr(self.shape, name)[which] for name in Shape.__dataclass_fields__}),
            load=Load(**{name: getattr(self.load, name)[which] for name in Load.__dataclass_fields__}),
            step_s=self.step_s[which],
            all_reduce_s=None if self.all_reduce_s is None else self.all_reduce_s[which],
            prefill=self.prefill[which],
            tensor_parallel=self.tensor_parallel[which],
            model=self.model[which],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The result of a fit.

    Attributes
    ----------
    constants
        With every share at most one.
    held
        Constants of which the rows tell nothing, so that they are what was assumed.
    nonsense
        Why the fit must not be used; empty if it may.
    """

    constants: RooflineConstants
    held: tuple[str, ...]
    nonsense: tuple[str, ...]


def fit(steps: Steps, interconnect: Interconnect) -> Fitted:
    """Fit the constants of one tier to its steps (see the module text)."""
    names, mean, spread = _priors(interconnect)
    free, jacobian = _solve(steps, mean, spread, np.full(len(names), np.inf))
    found = free
    shares = [names.index(name) for name in SHARES]
    above = {names[k]: float(np.exp(free[k])) for k in shares if free[k] > 0}
    if above:
        bound = np.full(len(names), np.inf)
        bound[shares] = 0.0
        found, jacobian = _solve(steps, mean, spread, bound)
    constants = _constants(found)
    return Fitted(
        constants=constants,
        held=tuple(_held(names, jacobian, spread)),
        nonsense=tuple(_nonsense(steps, _constants(free), constants, above)),
    )


def errors(constants: RooflineConstants, steps: Steps) -> FloatArray:
    """Relative error of each predicted step."""
    return np.asarray(parts(constants, steps.shape, steps.load).step_s / steps.step_s - 1)


def constant_errors(steps: Steps) -> FloatArray:
    """Relative errors of the paper's form at its best: constants per token over n (TP), fitted to these very rows.

    One constant per model for a prompt token and one for an output token (arXiv 2604.07472), each with the least mean
    relative error: the median of what the rows ask for, weighted by its inverse.
    """
    tokens = np.where(steps.prefill, steps.load.prompt_tokens, 1.0)
    constant = steps.step_s * steps.tensor_parallel / tokens
    relative = np.zeros(len(steps))
    for model in np.unique(steps.model):
        for prefill in (True, False):
            own = (steps.model == model) & (steps.prefill == prefill)
            if own.any():
                asked = np.sort(constant[own])
                weight = np.cumsum(1 / asked)
                relative[own] = asked[np.searchsorted(weight, weight[-1] / 2)] / constant[own] - 1
    return relative


def phase_error(relative: FloatArray) -> PhaseError | None:
    """Mean and 90th percentile of the absolute relative errors, None if there are none."""
    if not len(relative):
        return None
    size = np.abs(relative)
    return PhaseError(rows=len(size), mape=float(size.mean()), p90=float(np.quantile(size, 0.9)))


def left_out(steps: Steps, interconnect: Interconnect) -> Iterator[tuple[str, str, Steps, FloatArray]]:
    """Errors on what was left out of the fit: each TP degree, then each model, where there are two or more.

    Yields
    ------
    what, which, steps, relative
        For instance "tensor_parallel", "8", the steps that were left out and their errors.
    """
    for what, column in (("tensor_parallel", steps.tensor_parallel), ("model", steps.model)):
        values = np.unique(column)
        for value in values if len(values) > 1 else []:
            out = np.asarray(column == value)
            rest = steps.rows(~out)
            if len(rest) >= LEAST_ROWS:
                tested = steps.rows(out)
                yield what, str(value), tested, errors(fit(rest, interconnect).constants, tested)


def _priors(interconnect: Interconnect) -> tuple[list[str], FloatArray, FloatArray]:
    """Names, means and spreads of the fitted logarithms."""
    names, mean, spread = list(PRIORS), [], []
    for prior in PRIORS.values():
        mean.append(np.log(prior.value))
        spread.append(prior.spread)
    for name, link in LINKS[interconnect].items():
        names += [f"{name} at TP 2", f"{name} per doubling", *(f"{name} at TP {n}" for n in DEGREES[1:])]
        mean += [np.log(link.value), np.log(link.step) if _is_time(name) else link.step, *(0.0 for _ in DEGREES[1:])]
        spread += [link.spread, link.step_spread, *(link.deviation for _ in DEGREES[1:])]
    return names, np.array(mean), np.array(spread)


def _is_time(name: str) -> bool:
    return name.endswith("_s") and not name.endswith("_per_s")


def _constants(logs: FloatArray) -> RooflineConstants:
    scalars = dict(zip(PRIORS, np.exp(logs[: len(PRIORS)]).tolist(), strict=True))
    links: dict[int, dict[str, float]] = {degree: {} for degree in DEGREES}
    at = len(PRIORS)
    for name in Communication.__dataclass_fields__:
        first, step = logs[at], logs[at + 1]
        deviations = [0.0, *logs[at + 2 : at + 1 + len(DEGREES)]]
        for k, degree in enumerate(DEGREES):
            if _is_time(name):
                value = (np.exp(first) + k * np.exp(step)) * np.exp(deviations[k])
            else:
                value = np.exp(first + k * step + deviations[k])
            links[degree][name] = float(value)
        at += 1 + len(DEGREES)
    communication = {degree: Communication(**values) for degree, values in links.items()}
    return RooflineConstants(**scalars, communication=communication)


def _solve(steps: Steps, mean: FloatArray, spread: FloatArray, bound: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The fitted logarithms, and the Jacobian of the data at them."""
    data = _residuals(steps)

    def residuals(logs: FloatArray) -> FloatArray:
        return np.concatenate([data(logs), (logs - mean) / spread])

    start = np.minimum(mean, bound)
    found = least_squares(residuals, start, bounds=(-np.inf, bound), x_scale=spread, max_nfev=200)
    return np.asarray(found.x), np.asarray(found.jac)[: -len(mean)]


def _residuals(steps: Steps) -> Callable[[FloatArray], FloatArray]:
    def residuals(logs: FloatArray) -> FloatArray:
        found = parts(_constants(logs), steps.shape, steps.load)
        relative = np.log(found.step_s / steps.step_s)
        if steps.all_reduce_s is not None:
            part = PART_WEIGHT * (found.all_reduce_s - steps.all_reduce_s) / steps.step_s
            relative = np.concatenate([relative, part])
        scaled = relative / SCALE
        # Soft L1 by hand: the priors beside it stay squares.
        return np.asarray(np.sign(scaled) * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1)))

    return residuals


def _held(names: list[str], jacobian: FloatArray, spread: FloatArray) -> Iterator[str]:
    """Names of the constants of which the measurements tell nothing: their spread is nearly that of the prior."""
    precision = jacobian.T @ jacobian + np.diag(spread**-2.0)
    after = np.sqrt(np.diag(np.linalg.inv(precision)))
    for name, ratio in zip(names, after / spread, strict=True):
        if ratio > TOLD and " " not in name:
            yield name
    links: Mapping[str, list[bool]] = {
        name: [ratio > TOLD for other, ratio in zip(names, after / spread, strict=True) if other.startswith(f"{name} ")]
        for name in Communication.__dataclass_fields__
    }
    yield from (f"communication.{name}" for name, all_held in links.items() if all(all_held))


def _nonsense(
    steps: Steps, free: RooflineConstants, bounded: RooflineConstants, above: dict[str, float]
) -> Iterator[str]:
    free_mape = float(np.abs(errors(free, steps)).mean())
    mape = float(np.abs(errors(bounded, steps)).mean())
    if above and mape > 1.5 * free_mape + 0.05:
        told = ", ".join(f"{name} would be {value:.3g}" for name, value in above.items())
        yield (
            f"{told}: above the datasheet peak. With at most 1 the error is {mape:.0%} instead of {free_mape:.0%}: "
            "are the times in ms, and are GPU, precision and TP degree right?"
        )
    for name in SHARES:
        value = getattr(bounded, name)
        if value < LEAST_SHARE:
            yield f"{name} would be {value:.2g}, less than a hundredth of the datasheet peak: are the times in ms?"
    if mape > 1:
        yield f"the mean error is {mape:.0%}: these times are not those of such a GPU"
