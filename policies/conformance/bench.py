"""The bench of the conformance suite: the policy under test, the problems it is given, and what was wrong so far."""

import copy
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from policies.checking.plan import TOLERANCE, CheckReport, check
from policies.checking.proof import Prover
from policies.checking.random_problem import random_problem, small_problem
from policies.checking.verify import verify
from policies.registry import make_policy
from simulator.errors import InfeasibleError, InputError, RunError
from simulator.planning.plan import Plan
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem

PATIENCE_S = 60.0  # with one plan of a small problem


class Broken(Exception):
    """The policy broke the rule of the check that runs."""


class Skipped(Exception):
    """There is nothing that the check could judge."""


class OutOfPatience(BaseException):
    """Not an Exception, lest the policy catch it."""


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:300]} ..." if len(text) > 300 else text or "no message"


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Stop a policy that does not return. Only the main thread of a POSIX process has such an alarm; others wait."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfPatience

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again: a solver's callback may swallow the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Bench:
    """The policy under test, the problems it is given, and what was found to be wrong so far."""

    text: str  # as `make_policy` takes it
    policy: Policy
    count: int
    seed: int
    limits_s: Sequence[float]
    complaints: list[str] = field(default_factory=list)
    trials: int = 0
    _answers: dict[str, Plan | InfeasibleError | Broken | RunError] = field(default_factory=dict)
    _optima_usd: dict[str, float | None] = field(default_factory=dict)

    def problems(self) -> Iterator[PlanningProblem]:
        return (small_problem(self.seed, number) for number in range(self.count))

    def free_problem(self, number: int, **changes: Any) -> PlanningProblem:
        """A small problem for which to serve nothing is a plan, so that a policy has no excuse for making none."""
        made = random_problem(types=4, models=3, tiers=3, seed=self.seed + number, **changes)
        return replace(made, name=f"free-{self.seed}-{number}")

    @contextmanager
    def trial(self, subject: str) -> Iterator[None]:
        """Note what goes wrong inside, and go on with the next trial."""
        self.trials += 1
        try:
            yield
        except Broken as error:
            self.complaints.append(f"{subject}: {error}")
        except (InfeasibleError, RunError) as error:
            self.complaints.append(f"{subject}: expected a plan, it raised {type(error).__name__}: {one_line(error)}")

    def plan(
        self,
        problem: PlanningProblem,
        *,
        incumbent: Plan | None = None,
        time_limit_s: float | None = None,
        patience_s: float | None = None,
    ) -> Plan:
        """The plan of the policy; InfeasibleError and RunError come through, anything else is a broken rule."""
        stop = StoppingRule(time_limit_s=time_limit_s)
        patience_s = PATIENCE_S if patience_s is None else patience_s
        try:
            with patience(patience_s):
                plan = self.policy.plan(problem, incumbent=incumbent, stop=stop, seed=self.seed)
        except (InfeasibleError, RunError):
            raise
        except OutOfPatience:
            raise Broken(f"expected an answer, it had not returned after {patience_s:.3g} s") from None
        except (Exception, SystemExit) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename}, line {frame.lineno}"
            told = f"{type(error).__name__}: {one_line(error)} ({place})"
            raise Broken(f"expected a plan or an InfeasibleError, it raised {told}") from error
        if not isinstance(plan, Plan):
            raise Broken(f"expected a Plan, it returned a {type(plan).__name__}")
        return plan

    def first_plan(self, problem: PlanningProblem) -> Plan:
        """Like `plan` without incumbent and limit, made once for the checks that only look at it."""
        if problem.name not in self._answers:
            try:  # on a copy: what a policy does to its problem shall not reach those who judge the plan
                self._answers[problem.name] = self.plan(copy.deepcopy(problem))
            except (InfeasibleError, RunError, Broken) as error:
                self._answers[problem.name] = error
        answer = self._answers[problem.name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def plans(self) -> Iterator[tuple[PlanningProblem, Plan]]:
        """The problems of which the policy has a plan, with the plan; that there are others is the first check's."""
        judged = 0
        for problem in self.problems():
            try:
                plan = self.first_plan(problem)
            except (InfeasibleError, RunError, Broken):
                continue
            judged += 1
            yield problem, plan
        if not judged:
            raise Skipped("it made no plan that could be judged")

    def optimum_usd(self, problem: PlanningProblem) -> float | None:
        """The lowest cost there is, by `exact` and its certificate; None where there is no plan."""
        if problem.name not in self._optima_usd:
            self._optima_usd[problem.name] = _certified_optimum_usd(problem)
        return self._optima_usd[problem.name]


def _certified_optimum_usd(problem: PlanningProblem) -> float | None:
    try:
        proof = cast(Prover, make_policy("exact")).prove(problem, incumbent=None, stop=StoppingRule(), seed=0)
    except InfeasibleError:
        return None
    report, verdict = check(problem, proof.plan), verify(problem, proof.certificate)
    if not (report.accepted and verdict.accepted) or above(report.cost_usd, verdict.bound_usd, 2 * TOLERANCE):
        raise RuntimeError(
            f"the optimum of {problem.name} could not be certified: {verdict.reason or report.violations}"
        )
    return report.cost_usd


def above(value: float, limit: float, tolerance: float = TOLERANCE) -> bool:
    """Whether a value is above its limit by more than the checker forgives."""
    return not value <= limit + tolerance * max(1.0, abs(limit))


def accept(problem: PlanningProblem, plan: Plan) -> None:
    """Break unless the checker accepts the plan."""
    keep(problem, plan, stated=True)


def report_on(problem: PlanningProblem, plan: Plan) -> CheckReport:
    """The checker's verdict; break where it cannot even read the plan."""
    try:
        return check(problem, plan)
    except InputError as error:
        raise Broken(f"expected a plan of this problem: {one_line(error)}") from None
    except Exception as error:  # fields of other types than the plan's
        raise Broken(f"expected a plan that can be read: {type(error).__name__}: {one_line(error)}") from None


def keep(problem: PlanningProblem, plan: Plan, *, stated: bool) -> None:
    """Break unless the plan keeps every constraint, and what it states of itself where that is asked for."""
    broken = [str(v) for v in report_on(problem, plan).violations if stated or not v.constraint.startswith("stated")]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise Broken(f"expected a plan that the checker accepts, it broke {broken[0]}{more}")


def may_serve_nothing(problem: PlanningProblem) -> bool:
    """Whether all demand may stay unmet, which is a plan for every budget."""
    return bool(problem.unmet_cap.min() >= 1)


def refuse_silence(error: InfeasibleError | RunError) -> None:
    if not str(error).strip():
        raise Broken(f"expected a message, it raised {type(error).__name__} without one") from None


def difference(one: str, other: str) -> str:
    """The first place where two texts differ, with a little around it."""
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, at - 20)
    return f"...{one[begin : at + 30]}... against ...{other[begin : at + 30]}..."
