"""What a serving engine adds to the kernels, fitted to measured closed-loop runs.

The schedule of a closed loop does not depend on how long its steps take (`simulator/replica/closed_loop.py`), so each
run is scheduled once, and a fit only prices the steps. Between two events steps differ in context alone, in which their
time is affine: they are priced together, at their mean context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from experiments.calibrate.serving_runs import Run, schedule_of
from simulator.catalog import ServingEngine, SourceKind
from simulator.delay.roofline import Load, Shape, engine_constants, engine_step_s
from simulator.replica.closed_loop import Schedule

FloatArray = npt.NDArray[np.float64]

SCALES = (0.04, 0.08)  # relative errors of TPOT and TTFT at which the loss turns from square to linear
TTFT_WEIGHT = 0.5

# Value and spread of the logarithm; assumed. Those of the factors, the layer and the sequence are what fits to the
# three engines came to, rounded: without them, runs of one model cannot tell a step from its layers.
PRIORS: dict[str, tuple[float, float]] = {
    "step_s": (5e-4, 1.0),
    "layer_s": (8e-6, 0.4),
    "sequence_s": (2.5e-5, 0.7),
    "prompt_token_s": (5e-8, 1.5),
    "prompt_layer_s": (2e-5, 1.5),
    "all_reduce_s": (3e-6, 1.0),
    "compute_factor": (0.86, 0.05),
    "bandwidth_factor": (1.05, 0.05),
    "attention_factor": (1.0, 0.05),
    "ttft_s": (1e-2, 1.0),
    "ttft_token_s": (1e-6, 1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priced:
    """A run cut into stretches of alike steps; positions of events count stretches."""

    run: Run
    load: Load
    steps: FloatArray  # in each stretch
    sent: npt.NDArray[np.int64]
    first_token: npt.NDArray[np.int64]
    finish: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]


def cut(run: Run, found: Schedule) -> Priced:
    """Cut a schedule into stretches within which only the context length changes."""
    count = len(found.sequences)
    prompts = np.flatnonzero(found.prompt_tokens > 0)
    edges = np.unique(np.concatenate([[0, count], prompts, prompts + 1, found.sent, found.first_token, found.finish]))
    starts, steps = edges[:-1], np.diff(edges)
    context = np.add.reduceat(found.context_tokens, starts) / steps
    prompt_tokens = found.prompt_tokens[starts].astype(np.float64)
    return Priced(
        run=run,
        load=Load(
            prompt_tokens=prompt_tokens,
            prompt_pairs=prompt_tokens * run.input_tokens / 2,
            prompts=prompt_tokens / run.input_tokens,
            sequences=found.sequences[starts].astype(np.float64),
            context_tokens=context,
        ),
        steps=steps.astype(np.float64),
        sent=np.searchsorted(edges, found.sent),
        first_token=np.searchsorted(edges, found.first_token),
        finish=np.searchsorted(edges, found.finish),
        output_tokens=run.lengths()[1],
    )


class Pricing:
    """The durations of all runs of one engine, computed together for any constants of that engine."""

    def __init__(self, runs: Sequence[Run], engine: ServingEngine) -> None:
        cuts = [(run, schedule_of(run, engine)) for run in runs]
        self.priced = [cut(run, found) for run, found in cuts if found is not None]
        self._tiers = dict.fromkeys(one.run.tier.name for one in self.priced)
        self._batches = {
            name: _Batch([p for p in self.priced if p.run.tier.name == name], engine) for name in self._tiers
        }
        self.priced = [one for batch in self._batches.values() for one in batch.priced]
        self.measured = np.array([[one.run.tpot_s, one.run.ttft_s] for one in self.priced])

    def times(self, engine: ServingEngine) -> FloatArray:
        """Shape (runs, 2): mean TPOT and TTFT of each run under an engine's constants [s]."""
        return np.concatenate([batch.times(engine) for batch in self._batches.values()])


class _Batch:
    """The runs on one GPU tier, in arrays."""

    def __init__(self, priced: list[Priced], engine: ServingEngine) -> None:
        self.priced = priced
        counts = [len(one.steps) for one in priced]
        self._ends = np.cumsum(counts)[:-1]
        shapes = [
            Shape.of(one.run.model, one.run.tier, one.run.tensor_parallel, one.run.pipeline_parallel, engine)
            for one in priced
        ]
        self._shape = Shape(
            **{name: np.repeat([getattr(s, name) for s in shapes], counts) for name in Shape.__dataclass_fields__}
        )
        self._load = Load(
            **{name: np.concatenate([getattr(o.load, name) for o in priced]) for name in Load.__dataclass_fields__}
        )
        self._steps = np.concatenate([one.steps for one in priced])
        calibration = priced[0].run.tier.calibration
        assert calibration is not None
        assert calibration.source.kind is SourceKind.COMPOSED
        self._constants = calibration.constants

    def times(self, engine: ServingEngine) -> FloatArray:
        constants = engine_constants(self._constants, engine)
        stretches = self._steps * engine_step_s(constants, engine, self._shape, self._load)
        found = []
        for one, own in zip(self.priced, np.split(stretches, self._ends), strict=True):
            clock = np.concatenate([[0.0], np.cumsum(own)])
            first = clock[one.first_token]
            tpot_s = ((clock[one.finish] - first) / np.maximum(1, one.output_tokens - 1)).mean()
            outside_s = engine.ttft_s + engine.ttft_token_s * one.run.input_tokens
            found.append((tpot_s, (first - clock[one.sent]).mean() + outside_s))
        return np.array(found)


def fit_engine(pricing: Pricing, start: ServingEngine) -> ServingEngine:
    """The constants of an engine that agree best with its runs; budget and prompts per step stay those of `start`."""
    mean = np.log([value for value, _ in PRIORS.values()])
    spread = np.array([spread for _, spread in PRIORS.values()])
    # Effective shares stay within the datasheet's peaks.
    bound = np.full(len(mean), np.inf)
    for one in {p.run.tier.name: p.run.tier for p in pricing.priced}.values():
        assert one.calibration is not None
        for name, share in (
            ("compute_factor", one.calibration.constants.compute_share),
            ("bandwidth_factor", one.calibration.constants.bandwidth_share),
            ("attention_factor", one.calibration.constants.attention_bandwidth_share),
        ):
            k = list(PRIORS).index(name)
            bound[k] = min(bound[k], -np.log(share))

    def residuals(logs: FloatArray) -> FloatArray:
        relative = np.log(pricing.times(_engine(start, logs)) / pricing.measured) / SCALES
        robust = np.sign(relative) * np.sqrt(2 * (np.sqrt(1 + relative**2) - 1))
        return np.concatenate([robust[:, 0], TTFT_WEIGHT * robust[:, 1], (logs - mean) / spread])

    found = least_squares(
        residuals, np.minimum(mean, bound), bounds=(-np.inf, bound + 1e-9), x_scale=spread, max_nfev=15
    )
    return _engine(start, found.x)


def _engine(start: ServingEngine, logs: FloatArray) -> ServingEngine:
    return replace(start, **dict(zip(PRIORS, np.exp(logs).tolist(), strict=True)))
