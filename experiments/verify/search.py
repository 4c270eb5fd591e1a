"""What a search for a verified plan is asked, and what it knows and finds: values that the loop fills."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import PercentileSlo
from experiments.verify.acceptance import Acceptance
from experiments.verify.guess import Guess
from experiments.verify.moves import Candidate
from experiments.verify.sample import Sample
from experiments.verify.trial import Bench, Trial

FloatArray = npt.NDArray[np.float64]

SEARCH_DRAWS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """How a plan is verified.

    Attributes
    ----------
    level
        Percentile at which the limits of types count that state no percentile.
    guard
        Share of each limit that the simulations have to keep, in (0, 1].
    draws
        Fresh draws that the first plan which comes so far has to pass if it fails none; with failures, and for later
        ones, it takes more (`experiments.verify.acceptance`).
    effort
        Cheaper fleets that are simulated once a plan was accepted.
    """

    level: float = 0.95
    guard: float = 0.98
    guess: Guess = Guess.AUTO
    draws: int = 94
    effort: int = 40
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tried:
    """A plan that was simulated, and what came of it.

    `failed` is the trial that it did not pass, None if it passed all: there is the most to learn from.
    """

    step: str  # of the loop: `round 1`, `one more`, `another plan`, `smaller`
    candidate: Candidate
    trial: Trial
    acceptance: Acceptance | None = None
    failed: Trial | None = None

    @property
    def accepted(self) -> bool:
        return self.acceptance is not None and self.acceptance.accepted


@dataclass(slots=True, kw_only=True, eq=False)
class Search:
    """What the loop knows, and at its end what it found.

    Attributes
    ----------
    guessed
        Shape (types, configurations), over `Scenario.configurations`: the cap that theory says.
    learned
        Shape (configurations,): what simulations say of it; the cap of a route is the product.
    best
        The cheapest that was accepted, None if none was.
    fresh_used
        Fresh draws that acceptances used so far; `unseen` is the number of the next.
    """

    guess: Guess
    sample: Sample
    slos: list[tuple[PercentileSlo, ...]]
    bench: Bench
    guessed: FloatArray
    learned: FloatArray
    tried: list[Tried] = field(default_factory=list)
    best: Tried | None = None
    fresh_used: int = 0

    @property
    def unseen(self) -> int:
        """From this number on no plan was tried on any draw."""
        return SEARCH_DRAWS + self.fresh_used

    @property
    def closest(self) -> Tried | None:
        """Of the plans that were not accepted the one that passed most draws, the one closest to its SLOs of these."""

        def order(item: Tried) -> tuple[int, float]:
            passed = 0 if item.acceptance is None else len(item.acceptance.search) + len(item.acceptance.fresh)
            return -passed, item.trial.slo_ratio if item.failed is None else item.failed.slo_ratio

        return min((item for item in self.tried if not item.accepted), key=order, default=None)


def line_of(scenario: Scenario, tried: Tried) -> str:
    """What was tried and what came of it, in a line."""
    worst = tried.trial.worst
    told = "no SLO" if worst is None else f"{scenario.types[worst[0]].name} {worst[1].slo.label}"
    text = f"{tried.step}: {tried.trial.cost_usd_per_h:.3f} USD/h, {tried.candidate.plan.gpus} GPUs; "
    if worst is not None:
        text += f"worst {told}: {worst[1].share:.1%} late, {worst[1].slo.allowed:.1%} may be"
    acceptance = tried.acceptance
    if acceptance is None:
        return text
    if acceptance.accepted:
        draws = len(acceptance.fresh)
        return f"{text}; accepted, it held on {draws - acceptance.failures} of {draws} fresh draws"
    if (acceptance.held_out or 0) > 1:
        return f"{text}; not accepted: {acceptance.held_out:.2f} times as many late as may be in the part held out"
    if acceptance.fresh:
        return f"{text}; not accepted: {acceptance.failures} of {len(acceptance.fresh)} fresh draws were not passed"
    number = len(acceptance.search)
    return f"{text}; not accepted: {acceptance.worst:.2f} times as many late as may be on draw {number}"
