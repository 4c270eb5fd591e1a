"""The loop: plan, simulate, learn how much headroom is needed, plan again; then make the fleet smaller while it holds.

1. Guess the headroom of every configuration from theory (`guess.py`), once for all demand and once more for the routing
   that this plan has.
2. Plan, and simulate the plan on the arrivals that are learned from. If every SLO holds, try to have it accepted on the
   part that was held out and on fresh draws (`acceptance.py`). If not, read from the simulation by how much the load of
   each deployment has to shrink (`learning.py`), and plan again, six times at most.
3. If nothing was accepted by then, add replicas where they are needed to the plan that came closest.
4. From the plan that was accepted on, try cheaper ones: what the policy plans at less headroom; fleets of one replica
   less, or with one exchanged for up to three that rent for less, each routed as evenly as it can be (`moves.py`). What
   holds and costs less is accepted in the same way.

Every plan that was tried is kept; the cheapest that was accepted is the result, not the last. Whether a fleet holds is
not monotone in its headroom, so nothing is bisected.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from experiments.replay.controller import Headroom, build_problem
from experiments.scenario.scenario import Scenario
from experiments.verify.acceptance import FAILURES, Acceptance, draws_wanted
from experiments.verify.draws import Draw, Draws
from experiments.verify.floor import usable_routes
from experiments.verify.guess import LEAST_CAP, Guess, choose, peak
from experiments.verify.learning import LEAST, Need, needs
from experiments.verify.moves import (
    MOST_CAP_RATIO,
    Candidate,
    even_routing,
    fullness_by_key,
    larger_fleets,
    shares_by_key,
    smaller_fleets,
    with_cap_ratio,
)
from experiments.verify.sample import Sample
from experiments.verify.search import SEARCH_DRAWS, Search, Tried, VerifyOptions, line_of
from experiments.verify.trial import Bench, Trial
from policies.checking.checked_plan import checked_plan
from simulator.catalog.configuration import Configuration, DeploymentKey
from simulator.errors import InfeasibleError
from simulator.fleet.replicas import replicas_by_deployment
from simulator.planning.plan import Plan, plan_arrays
from simulator.planning.policy import Policy
from simulator.planning.problem import PlanningProblem

FloatArray = npt.NDArray[np.float64]

ROUNDS = 6
ADDITIONS = 12
EFFORT = 150  # fleets that agh+ routes for one of many plans
LOOSER = (1.7, 1.4, 1.2, 1.1, 1.05)  # times the caps that were learned: plans at less headroom
CHEAPER = 0.995  # times the cost of the best: a smaller saving is not worth the draws of an acceptance
OTHER, SMALLER = "another plan", "smaller"


def verify(
    scenario: Scenario,
    draws: Draws,
    policy: Policy,
    options: VerifyOptions,
    tell: Callable[[str], None] = lambda _: None,
) -> Search:
    """Find the cheapest plan whose simulated percentiles hold.

    Parameters
    ----------
    tell
        Gets a line for each plan that was tried.

    Raises
    ------
    InputError
        If an SLO is below the physical floor, or no plan keeps the other limits.
    """
    return Loop(scenario, draws, policy, options, tell).run()


class Loop:
    """One search; see the text of the module."""

    def __init__(
        self, scenario: Scenario, draws: Draws, policy: Policy, options: VerifyOptions, tell: Callable[[str], None]
    ) -> None:
        self._scenario, self._draws, self._policy, self._options, self._tell = scenario, draws, policy, options, tell
        sample = Sample.of(draws.learning)
        slos = [
            rule.slos(options.level) if len(of_type) else ()
            for rule, of_type in zip(scenario.types, sample.types, strict=True)
        ]
        self._usable = usable_routes(scenario, sample, slos, options.guard)
        self._demand = sample.demand(scenario)
        self._known: set[object] = set()
        self._simulated: set[DeploymentKey] = set()
        self._reached = 0  # plans that were held against fresh draws
        self._kept: dict[int, Draw] = {}
        self._refused: Counter[int] = Counter()  # by draw: those that refuse most are tried first
        guess = choose(sample) if options.guess is Guess.AUTO else options.guess
        self.search = Search(
            guess=guess,
            sample=sample,
            slos=slos,
            bench=Bench(scenario, slos, options.guard),
            guessed=np.ones(self._usable.shape),
            learned=np.ones(self._usable.shape[1]),
        )

    def run(self) -> Search:
        """Search to the end."""
        self._guess()
        for number in range(1, ROUNDS + 1):
            candidate = self._possible()
            if not self._is_new(candidate):  # no more headroom is to be had from this policy
                break
            tried = self.attempt(f"round {number}", candidate)
            if tried.accepted:
                break
            self._learn(tried)
        if self.search.best is None:
            self._add()
        if self.search.best is not None:
            self._shrink()
        return self.search

    # -- the headroom -----------------------------------------------------------------------------------------------

    def _guess(self) -> None:
        """C: of each type by itself. A: of all demand that may go there, then of what the plan at that sends there."""
        search, configurations = self.search, self._scenario.configurations
        if search.guess is Guess.SEQUENCE:
            for i, alone in enumerate(np.eye(len(self._scenario.types))):
                for a in np.flatnonzero(self._usable[i]).tolist():
                    search.guessed[i, a] = self._cap(configurations[a], alone)
        elif search.guess is Guess.STAFFING:
            for a, configuration in enumerate(configurations):
                search.guessed[:, a] = self._cap(configuration, self._usable[:, a].astype(np.float64))
            candidate = self._possible()
            for key, share in shares_by_key(candidate.problem, candidate.plan).items():
                for a in self._indices(key):
                    search.guessed[:, a] = self._cap(configurations[a], share)

    def _cap(self, configuration: Configuration, share: FloatArray) -> float:
        guess, sample, level = self.search.guess, self.search.sample, self._options.level
        return peak(guess, self._scenario, sample, configuration, share, level).cap

    def _indices(self, key: DeploymentKey) -> list[int]:
        return [a for a, c in enumerate(self._scenario.configurations) if c.deployment_key == key]

    def _learn(self, tried: Tried) -> None:
        """Shrink the load of the deployments that were too full on the draw that was not passed.

        Half of what theory was off (in the logarithm) is taken over to the deployments that were not simulated: they
        would get the same traffic.
        """
        search, candidate = self.search, tried.candidate
        fullness = {
            key: full * candidate.cap_ratio for key, full in fullness_by_key(candidate.problem, candidate.plan).items()
        }
        factors = {key: need.factor for key, need in self._needs(tried).items()}
        if not factors:  # the types as a whole are late, but at no deployment alone
            factors = dict.fromkeys(fullness, LEAST)
        new = {key: search.learned[self._indices(key)[0]] * min(fullness[key], 1.0) / factors[key] for key in factors}
        others = np.ones(len(search.learned), dtype=np.bool_)
        for key in self._simulated | set(fullness):
            others[self._indices(key)] = False
        search.learned[others] /= np.sqrt(max(factors.values()))
        for key, cap in new.items():
            search.learned[self._indices(key)] = max(LEAST_CAP, cap)
        self._simulated |= set(fullness)

    def _needs(self, tried: Tried) -> dict[DeploymentKey, Need]:
        """What the deployments of a plan need, by the trial that it did not pass; nothing if it passed all."""
        if tried.failed is None:
            return {}
        search, plan = self.search, tried.candidate.plan
        return needs(self._scenario, search.sample, plan, tried.failed.run.requests, search.slos, self._options.guard)

    # -- plans ------------------------------------------------------------------------------------------------------

    def problem(self) -> PlanningProblem:
        """The planning problem at the headroom that is known."""
        return build_problem(
            self._scenario,
            self._demand,
            name=f"{self._scenario.name}@verified",
            period_h=1.0,
            headroom=Headroom(
                cap=np.clip(self.search.guessed * self.search.learned, LEAST_CAP, 1.0), usable=self._usable
            ),
        )

    def planned(self, cap_ratio: float = 1.0) -> Candidate:
        """The policy's plan at the headroom that is known, or at so much less."""
        problem = with_cap_ratio(self.problem(), cap_ratio)
        stop = replace(self._scenario.file.stop.rule(), effort=EFFORT)
        plan, _ = checked_plan(self._policy, problem, incumbent=None, stop=stop, seed=self._options.seed)
        return Candidate(plan=plan, problem=problem, cap_ratio=cap_ratio)

    def _possible(self) -> Candidate:
        """The policy's plan at the headroom that is known or, where that leaves none, at as much as there can be.

        Raises
        ------
        InfeasibleError
            If there is no plan without any headroom either.
        """
        for cap_ratio in (1.0, *reversed(LOOSER)):
            try:
                return self.planned(cap_ratio)
            except InfeasibleError:
                continue
        return self.planned(1 / LEAST_CAP)

    def attempt(self, step: str, candidate: Candidate) -> Tried:
        """Simulate a plan; if it holds and is cheaper than the best, try to have it accepted."""
        trial = self.search.bench.trial(candidate.plan, self._draws.learning)
        best = self.search.best
        cheaper = best is None or trial.cost_usd_per_h < CHEAPER * best.trial.cost_usd_per_h
        acceptance: Acceptance | None = None
        failed: Trial | None = trial
        if trial.holds and cheaper:
            acceptance, failed = self._accept(candidate.plan)
        tried = Tried(step=step, candidate=candidate, trial=trial, acceptance=acceptance, failed=failed)
        self.search.tried.append(tried)
        if tried.accepted:
            self.search.best = tried
        self._tell(line_of(self._scenario, tried))
        return tried

    def _accept(self, plan: Plan) -> tuple[Acceptance, Trial | None]:
        """The part that was held out, the draws of the search, fresh ones; the first that is not passed ends it.

        The part that was held out is short: it counts for the SLOs that it has requests enough to tell.
        """
        held_out: Trial | None = None
        search: list[Trial] = []
        fresh: list[Trial] = []
        failed: Trial | None = None
        if self._draws.held_out is not None:
            held_out = self.search.bench.trial(plan, self._draws.held_out)
            failed = None if held_out.that_tell.holds else held_out
        if failed is None:
            failed = self._pass(plan, sorted(range(SEARCH_DRAWS), key=self._refused.__getitem__, reverse=True), search)
        if failed is None:
            self._reached += 1
            failed = self._fresh(plan, self._reached, fresh)
        acceptance = Acceptance(
            held_out=None if held_out is None else held_out.that_tell.slo_ratio,
            search=tuple(trial.slo_ratio for trial in search),
            fresh=tuple(trial.slo_ratio for trial in fresh),
            first=self._options.draws,
            number=max(self._reached, 1),
            held_out_late=() if held_out is None else held_out.late,
            fresh_late=tuple(trial.late for trial in fresh),
        )
        return acceptance, failed

    def _pass(self, plan: Plan, numbers: Iterable[int], trials: list[Trial]) -> Trial | None:
        """The first draw that is not passed, None if all are; `trials` gets all that were tried."""
        for number in numbers:
            trial = self.search.bench.trial(plan, self._draw(number))
            trials.append(trial)
            if not trial.holds:
                self._refused[number] += 1
                return trial
        return None

    def _fresh(self, plan: Plan, number: int, trials: list[Trial]) -> Trial | None:
        """The fresh draw that ended it, None if plan `number` is accepted; `trials` gets all that were tried."""
        failures = 0
        while len(trials) < draws_wanted(self._options.draws, number, failures):
            trial = self.search.bench.trial(plan, self._draw(self.search.unseen))
            self.search.fresh_used += 1
            trials.append(trial)
            failures += not trial.holds
            if failures > FAILURES:
                return trial
        return None

    def _draw(self, number: int) -> Draw:
        """The draws of the search are kept."""
        if number >= SEARCH_DRAWS:
            return self._draws.fresh(number)
        if number not in self._kept:
            self._kept[number] = self._draws.fresh(number)
        return self._kept[number]

    # -- larger and smaller fleets ----------------------------------------------------------------------------------

    def _add(self) -> None:
        """One replica more at a time, where the plan that came closest needs it most."""
        at = self.search.closest
        for _ in range(ADDITIONS):
            if at is None or at.accepted:
                return
            problem, plan = at.candidate.problem, at.candidate.plan
            short = self._needs(at)
            order = sorted(short, key=lambda key: -short[key].factor)
            index = {d.configuration.deployment_key: d.configuration for d in plan.deployments}
            first = [problem.configuration_index[index[key]] for key in order]
            at = next(
                (
                    self.attempt("one more", candidate)
                    for fleet in larger_fleets(problem, plan, first)
                    if (candidate := even_routing(problem, fleet, policy=plan.policy)) is not None
                ),
                None,
            )

    def _shrink(self) -> None:
        """Other plans at this headroom or less, then fleets a replica smaller or cheaper, until none holds."""
        problem, left = self.problem(), self._options.effort
        for candidate in self._others(problem):
            if left <= 0:
                return
            left -= 1
            self.attempt(OTHER, candidate)
        while left > 0:
            at = self.search.best
            assert at is not None
            for candidate in self._smaller(problem, at.candidate.plan):
                left -= 1
                if self.attempt(SMALLER, candidate).accepted or left <= 0:
                    break
            if self.search.best is at:
                return

    def _others(self, problem: PlanningProblem) -> Iterator[Candidate]:
        """What the policy plans at less headroom, with its own routing and with the evenest."""
        for cap_ratio in LOOSER:
            try:
                planned = self.planned(cap_ratio)
            except InfeasibleError:
                continue
            even = even_routing(problem, plan_arrays(problem, planned.plan).replicas, policy=planned.plan.policy)
            for candidate in (planned, even):
                if candidate is not None and self._could_pay(candidate) and self._is_new(candidate):
                    yield candidate

    def _smaller(self, problem: PlanningProblem, plan: Plan) -> Iterator[Candidate]:
        """Fleets that rent for less: first the cheapest of those little fuller than what held."""
        untried = []
        for fleet in smaller_fleets(problem, plan):
            candidate = even_routing(problem, fleet, policy=plan.policy)
            if candidate is not None and self._could_pay(candidate):
                untried.append(candidate)
        while untried:
            smaller = [item for item in self.search.tried if item.step == SMALLER]
            held = max((item.candidate.cap_ratio for item in smaller if item.accepted), default=1.0)
            broke = [item.candidate.cap_ratio for item in smaller if not item.accepted]
            between = float(np.sqrt(held * min((ratio for ratio in broke if ratio > held), default=MOST_CAP_RATIO)))
            best = min(
                untried,
                key=lambda c: (c.cap_ratio > between, c.plan.cost_usd if c.cap_ratio <= between else c.cap_ratio),
            )
            untried.remove(best)
            if self._is_new(best):
                yield best

    def _is_new(self, candidate: Candidate) -> bool:
        """Whether this fleet with this routing was not tried yet; asked once of each."""
        plan = candidate.plan
        routing = tuple((r.query_type, r.model, r.tier, round(r.share, 6)) for r in plan.routing)
        key = tuple(sorted(replicas_by_deployment(plan).items())), routing  # an operating point is nothing physical
        if key in self._known:
            return False
        self._known.add(key)
        return True

    def _could_pay(self, candidate: Candidate) -> bool:
        """Whether its planned cost is below the best simulated one."""
        best = self.search.best
        return best is None or candidate.plan.cost_usd < best.trial.cost_usd_per_h
