"""What every policy owes to its callers, as named checks: the suite behind `tokenfleet check-policy` and of the tests.

A check plans a few problems and says in one sentence what held, or what was expected and what happened instead. Nothing
is taken on trust: plans go through the checker, bounds and optima are held against certified optima, and whatever a
policy raises besides what the port allows is its defect. Problems are made anew for each check, so that a policy that
changes one spoils no other check.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from policies.checking.certificate import verify
from policies.checking.plan import TOLERANCE, CheckReport, check
from policies.checking.proof import Prover
from policies.checking.random_problem import random_problem, restricted, small_problem, with_demand, with_types
from policies.registry import make_policy
from simulator.errors import InfeasibleError, InputError, RunError
from simulator.planning.files import read_plan, write_plan
from simulator.planning.plan import Plan, PlanStatus
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import MovingTerms, PlanningProblem
from simulator.rng import stream

LIMITS_S = (0.5, 2.0)  # of the check of the time limit
TRIES = 3  # of a run that took too long: another process may have been in the way
INFEASIBLE_LIMIT_S = 1.0
SHORTEST_S, SHORTEST_MAY_TAKE_S = 0.001, 1.0
PATIENCE_S = 60.0  # with one plan of a small problem
MOVING = MovingTerms(provisioning_s=600.0, load_gb_per_s=0.5, drain_s=120.0)


class Status(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check, in one sentence."""

    name: str
    status: Status
    detail: str


class _Broken(Exception):
    """The policy broke the rule of the check that runs."""


class _Skipped(Exception):
    """There is nothing that the check could judge."""


class _OutOfPatience(BaseException):
    """Not an Exception, lest the policy catch it."""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:300]} ..." if len(text) > 300 else text or "no message"


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Stop a policy that does not return. Only the main thread of a POSIX process has such an alarm; others wait."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise _OutOfPatience

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
    _answers: dict[str, Plan | InfeasibleError | _Broken | RunError] = field(default_factory=dict)
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
        except _Broken as error:
            self.complaints.append(f"{subject}: {error}")
        except (InfeasibleError, RunError) as error:
            self.complaints.append(f"{subject}: expected a plan, it raised {type(error).__name__}: {_one_line(error)}")

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
            with _patience(patience_s):
                plan = self.policy.plan(problem, incumbent=incumbent, stop=stop, seed=self.seed)
        except (InfeasibleError, RunError):
            raise
        except _OutOfPatience:
            raise _Broken(f"expected an answer, it had not returned after {patience_s:.3g} s") from None
        except (Exception, SystemExit) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename}, line {frame.lineno}"
            told = f"{type(error).__name__}: {_one_line(error)} ({place})"
            raise _Broken(f"expected a plan or an InfeasibleError, it raised {told}") from error
        if not isinstance(plan, Plan):
            raise _Broken(f"expected a Plan, it returned a {type(plan).__name__}")
        return plan

    def first_plan(self, problem: PlanningProblem) -> Plan:
        """Like `plan` without incumbent and limit, made once for the checks that only look at it."""
        if problem.name not in self._answers:
            try:  # on a copy: what a policy does to its problem shall not reach those who judge the plan
                self._answers[problem.name] = self.plan(copy.deepcopy(problem))
            except (InfeasibleError, RunError, _Broken) as error:
                self._answers[problem.name] = error
        answer = self._answers[problem.name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def plans(self) -> Iterator[tuple[PlanningProblem, Plan]]:
        """The problems of which the policy has a plan, with the plan; that there are others is the first check's."""
        found = 0
        for problem in self.problems():
            try:
                plan = self.first_plan(problem)
            except (InfeasibleError, RunError, _Broken):
                continue
            found += 1
            yield problem, plan
        if not found:
            raise _Skipped("it made no plan that could be judged")

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
    if not (report.accepted and verdict.accepted) or _above(report.cost_usd, verdict.bound_usd, 2 * TOLERANCE):
        raise RuntimeError(
            f"the optimum of {problem.name} could not be certified: {verdict.reason or report.violations}"
        )
    return report.cost_usd


def _above(value: float, limit: float, tolerance: float = TOLERANCE) -> bool:
    """Whether a value is above its limit by more than the checker forgives."""
    return not value <= limit + tolerance * max(1.0, abs(limit))


def _accept(problem: PlanningProblem, plan: Plan) -> None:
    """Break unless the checker accepts the plan."""
    _keep(problem, plan, stated=True)


def _report(problem: PlanningProblem, plan: Plan) -> CheckReport:
    """The checker's verdict; break where it cannot even read the plan."""
    try:
        return check(problem, plan)
    except InputError as error:
        raise _Broken(f"expected a plan of this problem: {_one_line(error)}") from None
    except Exception as error:  # fields of other types than the plan's
        raise _Broken(f"expected a plan that can be read: {type(error).__name__}: {_one_line(error)}") from None


def _keep(problem: PlanningProblem, plan: Plan, *, stated: bool) -> None:
    """Break unless the plan keeps every constraint, and what it states of itself where that is asked for."""
    broken = [str(v) for v in _report(problem, plan).violations if stated or not v.constraint.startswith("stated")]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise _Broken(f"expected a plan that the checker accepts, it broke {broken[0]}{more}")


# -- the checks -------------------------------------------------------------------------------------------------------


def feasible(bench: Bench) -> str:
    """Plans keep every constraint, and there is one where to serve nothing is allowed."""
    planned = missed = none = 0
    for problem in bench.problems():
        with bench.trial(problem.name):
            try:
                plan = bench.first_plan(problem)
            except InfeasibleError as error:
                if _may_serve_nothing(problem):
                    raise _Broken(
                        f"expected a plan, as all demand may stay unmet, it raised InfeasibleError: {_one_line(error)}"
                    ) from None
                if bench.optimum_usd(problem) is None:
                    none += 1
                else:
                    missed += 1
            else:
                _keep(problem, plan, stated=False)
                planned += 1
    text = f"planned {planned} of {bench.count} random problems, every constraint kept"
    text += f"; {none} proven to have no plan" if none else ""
    return text + (f"; missed a plan of {missed}, which `exact` has" if missed else "")


def honest(bench: Bench) -> str:
    """Cost, bound and status say what is so."""
    judged = bounds = proven = 0
    for problem, plan in bench.plans():
        with bench.trial(problem.name):
            judged += 1
            cost_usd = _report(problem, plan).cost_usd
            if _above(abs(plan.cost_usd - cost_usd), 0.0, TOLERANCE * max(1.0, abs(cost_usd))):
                raise _Broken(
                    f"expected the cost that the checker finds, {cost_usd:.9g} USD, it said {plan.cost_usd:.9g}"
                )
            optimum_usd = bench.optimum_usd(problem)
            if optimum_usd is None:
                continue  # the plan breaks a constraint: the first check tells
            if plan.bound_usd is not None:
                bounds += 1
                if _above(plan.bound_usd, optimum_usd):
                    raise _Broken(
                        f"expected a bound of at most the optimum, {optimum_usd:.9g} USD, it said {plan.bound_usd:.9g}"
                    )
            if plan.status is PlanStatus.OPTIMAL:
                proven += 1
                if _above(cost_usd, optimum_usd):
                    raise _Broken(
                        f"expected the optimum, {optimum_usd:.9g} USD, of a plan of status optimal, "
                        f"it costs {cost_usd:.9g}"
                    )
    return f"{judged} costs as the checker finds them; {bounds} bounds and {proven} optima stated, each of them true"


def deterministic(bench: Bench) -> str:
    """Same arguments, same plan: again in this process, after other problems, and in a new process."""
    first = _answers(bench.policy, bench.seed)
    again = _answers(bench.policy, bench.seed, backwards=True)
    afresh = _answers_afresh(bench)
    for name, answer in first.items():
        with bench.trial(name):
            for other, where in ((again[name], "after other problems"), (afresh[name], "in a new process")):
                if other != answer:
                    raise _Broken(f"expected the same plan {where}, it made another: {_difference(answer, other)}")
    return f"the same {len(first)} answers again after other problems, and in a new process"


def _repeated(seed: int) -> list[PlanningProblem]:
    """The problems of the check of determinism, which a new process makes anew from the seed."""
    return [*(small_problem(seed, number) for number in range(4)), random_problem(types=8, seed=seed)]


def _answers(policy: Policy, seed: int, *, backwards: bool = False) -> dict[str, str]:
    """What the policy answers to each problem of the check of determinism, as text without machine time."""
    answers = {}
    for problem in sorted(_repeated(seed), key=lambda problem: problem.name, reverse=backwards):
        try:
            with _patience(PATIENCE_S):
                plan = policy.plan(problem, incumbent=None, stop=StoppingRule(), seed=seed)
            answers[problem.name] = repr(replace(plan, seconds=None))
        except _OutOfPatience:
            answers[problem.name] = "no answer"
        except (Exception, SystemExit) as error:
            answers[problem.name] = f"{type(error).__name__}: {error}"
    return answers


def _answers_afresh(bench: Bench) -> dict[str, str]:
    """The same from a new process, which orders sets in another way and remembers nothing."""
    command = [sys.executable, "-c", "from policies.conformance import tell_answers; tell_answers()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "random"}
    try:
        done = subprocess.run(
            [*command, bench.text, str(bench.seed)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Broken(f"a new process had not answered after {5 * PATIENCE_S:.3g} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise _Broken(f"a new process ended with exit code {done.returncode}: {last}")
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def tell_answers() -> None:
    """Entry point of the new process: the answers as one line of JSON."""
    text, seed = sys.argv[1:]
    with redirect_stdout(sys.stderr):
        answers = _answers(make_policy(text), int(seed))
    sys.stdout.write("\n" + json.dumps(answers) + "\n")


def _difference(one: str, other: str) -> str:
    """The first place where two texts differ, with a little around it."""
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, at - 20)
    return f"...{one[begin : at + 30]}... against ...{other[begin : at + 30]}..."


def pure(bench: Bench) -> str:
    """Neither the problem nor the incumbent is changed."""
    found = 0
    for problem in bench.problems():
        if found == 5:
            break
        with bench.trial(problem.name):
            before = _content(problem)
            try:
                plan = bench.plan(problem)
            except InfeasibleError:
                continue
            _unchanged("the problem", before, _content(problem))
            found += 1
            plan_before = repr(plan)
            try:
                bench.plan(problem, incumbent=plan)
            except InfeasibleError:
                continue
            _unchanged("the problem", before, _content(problem))
            if repr(plan) != plan_before:
                raise _Broken(f"expected the incumbent as it was: {_difference(plan_before, repr(plan))}")
    return f"{bench.trials} problems and {found} incumbents are as they were, to the byte"


def _content(problem: PlanningProblem) -> dict[str, str | bytes]:
    """All that a policy could change: fields, and what is derived and kept."""
    derived = [name for name, value in vars(PlanningProblem).items() if isinstance(value, cached_property)]
    values = {name: getattr(problem, name) for name in (*(field.name for field in fields(problem)), *derived)}
    return {name: v.tobytes() if isinstance(v, np.ndarray) else repr(v) for name, v in values.items()}


def _unchanged(what: str, before: dict[str, str | bytes], after: dict[str, str | bytes]) -> None:
    changed = [name for name, content in before.items() if after[name] != content]
    if changed:
        raise _Broken(f"expected {what} as it was, it changed {', '.join(changed)}")


def time_limit(bench: Bench) -> str:
    """An answer comes in time, whether there is a plan or not, on a problem that takes many a policy longer."""
    problem = random_problem(types=15, models=10, tiers=10, seed=bench.seed)
    capped = replace(with_types(problem, unmet_cap=0.1), name=f"{problem.name}-capped")
    broke = replace(with_types(problem, unmet_cap=0.0), name=f"{problem.name}-without-plan", budget_usd=0.0)
    runs = [
        *((which, limit_s, 1.1 * limit_s + 0.2) for limit_s in bench.limits_s for which in (problem, broke)),
        *((which, SHORTEST_S, SHORTEST_MAY_TAKE_S) for which in (problem, capped)),
    ]
    longest_s = dict.fromkeys((limit_s for _, limit_s, _ in runs), 0.0)
    for which, limit_s, may_take_s in runs:
        with bench.trial(f"{which.name}, limit {limit_s:g} s"):
            longest_s[limit_s] = max(longest_s[limit_s], _seconds(bench, which, limit_s, may_take_s))
    told = (f"at most {seconds:.2f} s of {limit_s:g} s" for limit_s, seconds in longest_s.items())
    return f"answered in time: {', '.join(told)}"


def _seconds(bench: Bench, problem: PlanningProblem, limit_s: float, may_take_s: float) -> float:
    """Seconds that an accepted plan took, or where none need exist another answer; the shortest of a few tries."""
    shortest_s = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        plan = None
        try:
            plan = bench.plan(problem, time_limit_s=limit_s, patience_s=10 * may_take_s + 5.0)
        except (InfeasibleError, RunError) as error:
            if _may_serve_nothing(problem):
                raise
            _tell_why(error)
        took_s = time.perf_counter() - started
        if plan is not None:
            _accept(problem, plan)
        shortest_s = min(shortest_s, took_s)
        if shortest_s <= may_take_s:
            return shortest_s
        if took_s > 2 * may_take_s:  # no other process is that much in the way
            break
    raise _Broken(f"expected an answer after at most {may_take_s:.3g} s, it took {shortest_s:.3g} s")


def _may_serve_nothing(problem: PlanningProblem) -> bool:
    """Whether all demand may stay unmet, which is a plan for every budget."""
    return bool(problem.unmet_cap.min() >= 1)


def _tell_why(error: InfeasibleError | RunError) -> None:
    if not str(error).strip():
        raise _Broken(f"expected a message, it raised {type(error).__name__} without one") from None


def incumbent(bench: Bench) -> str:
    """Any incumbent is taken: its own plan, one of other demand or another catalog, and moving may have a price."""
    kept = 0
    for number in range(2):
        problem = bench.free_problem(number)
        with bench.trial(problem.name):
            own = bench.first_plan(problem)
            _accept(problem, own)
            draw = stream(bench.seed, f"conformance-demand-{number}")
            other = with_demand(problem, draw.choice([0.95, 1.05], size=len(problem.query_types)))
            for now, what in (
                (problem, "its own plan"),
                (other, "its plan for 5 % other demand"),
                (replace(problem, moving=MOVING), "its own plan, moving priced"),
                (replace(other, moving=MOVING), "its plan for 5 % other demand, moving priced"),
            ):
                kept += _after(bench, now, own, what)
            for now in (problem, replace(problem, moving=MOVING)):
                stranger = _of_another_catalog(own)
                if _after(bench, now, stranger, "a plan of another catalog"):
                    raise _Broken("expected a plan of this problem, it kept the incumbent of another catalog")
    with bench.trial("moving priced, no incumbent"):
        problem = replace(bench.free_problem(0), moving=MOVING)
        _accept(problem, bench.plan(problem))
    note = f" (kept as it was {kept} times, which is not judged)" if kept else ""
    return (
        f"planned on from {bench.trials - 1} plans of its own, with moving free and priced, and from strange ones{note}"
    )


def _after(bench: Bench, problem: PlanningProblem, before: Plan, what: str) -> bool:
    """Plan with an incumbent; whether it was kept as it is, which no command judges again."""
    try:
        plan = bench.plan(problem, incumbent=before)
        if plan is before:
            return True
        _accept(problem, plan)
    except (_Broken, InfeasibleError, RunError) as error:
        told = str(error) if isinstance(error, _Broken) else f"it raised {type(error).__name__}: {_one_line(error)}"
        raise _Broken(f"with {what} as incumbent, {told}") from None
    return False


def _of_another_catalog(plan: Plan) -> Plan:
    """The plan with models that no problem here has."""
    deployments = (
        replace(d, configuration=replace(d.configuration, model=f"other-{d.configuration.model}"))
        for d in plan.deployments
    )
    routing = (replace(route, model=f"other-{route.model}") for route in plan.routing)
    return replace(plan, deployments=tuple(deployments), routing=tuple(routing))


def infeasible(bench: Bench) -> str:
    """That there is no plan is told."""
    for number in range(2):
        problem = with_types(bench.free_problem(number), unmet_cap=0.0)
        no_time = with_types(problem, delay_slo_s=1e-9)
        for which, what in ((replace(problem, budget_usd=0.0), "no budget"), (no_time, "a delay SLO of a nanosecond")):
            with bench.trial(f"{problem.name} with {what} and no unmet demand allowed"):
                try:
                    plan = bench.plan(which, time_limit_s=INFEASIBLE_LIMIT_S)
                except InfeasibleError as error:
                    _tell_why(error)
                except RunError as error:
                    raise _Broken(f"expected an InfeasibleError, it raised RunError: {_one_line(error)}") from None
                else:
                    raise _Broken(f"expected an InfeasibleError, it returned a plan of {plan.cost_usd} USD")
    return f"raised InfeasibleError with a message for {bench.trials} problems without a plan"


def empty(bench: Bench) -> str:
    """Little to plan is a problem like any other."""
    problem = bench.free_problem(0)
    types, configurations = len(problem.query_types), len(problem.configurations)
    nobody = np.zeros(types)
    cases = {
        "no demand of one type": with_demand(problem, np.where(np.arange(types) == 0, 0.0, 1.0)),
        "no demand at all": with_demand(problem, nobody),
        "no demand at all, none unmet": with_types(with_demand(problem, nobody), unmet_cap=0.0),
        "one type": restricted(problem, [0], range(configurations)),
        "one configuration": restricted(problem, range(types), [configurations // 2]),
        "one type, one configuration": restricted(problem, [0], [configurations // 2]),
        "unmet demand cheaper than any rent": with_types(problem, unmet_penalty_usd_per_query=1e-9),
        "no budget": replace(problem, budget_usd=0.0),
        "arrays in Fortran's order": replace(
            problem,
            delay_s=np.asfortranarray(problem.delay_s),
            load=np.asfortranarray(problem.load),
            kv=np.asfortranarray(problem.kv),
        ),
    }
    for what, case in cases.items():
        with bench.trial(f"{problem.name}, {what}"):
            try:
                _accept(case, bench.plan(case))
            except InfeasibleError:
                if _may_serve_nothing(case):
                    raise
    return f"accepted plans for {len(cases)} borderline problems: {'; '.join(cases)}"


def name(bench: Bench) -> str:
    """The plan names its policy and its problem, and survives a plan file."""
    own = bench.policy.name
    with bench.trial("the policy"):
        if not isinstance(own, str) or not own.strip():
            raise _Broken(f"expected a name that is a text and not empty, found {own!r}")
    with tempfile.TemporaryDirectory() as folder:
        for problem, plan in bench.plans():
            with bench.trial(problem.name):
                if plan.policy != own:
                    raise _Broken(f"expected a plan of policy {own!r}, it says {plan.policy!r}")
                if plan.problem != problem.name:
                    raise _Broken(f"expected a plan of problem {problem.name!r}, it says {plan.problem!r}")
                _survives_a_file(plan, Path(folder) / "plan.json")
    return f"plans say {own!r} and come back from a plan file as they were"


def _survives_a_file(plan: Plan, path: Path) -> None:
    try:
        write_plan(path, plan)
        back = read_plan(path)
    except Exception as error:  # numbers of another kind, not-a-number, shares below zero
        raise _Broken(f"expected a plan that a file can hold: {type(error).__name__}: {_one_line(error)}") from None
    if back != plan:
        other = [f.name for f in fields(plan) if getattr(plan, f.name) != getattr(back, f.name)]
        raise _Broken(f"expected the same plan back from a plan file, another came in {', '.join(other)}")


CHECKS: dict[str, Callable[[Bench], str]] = {
    "feasible": feasible,
    "honest": honest,
    "deterministic": deterministic,
    "pure": pure,
    "time limit": time_limit,
    "incumbent": incumbent,
    "infeasible": infeasible,
    "empty": empty,
    "name": name,
}


def run_checks(
    policy: str,
    *,
    problems: int = 25,
    seed: int = 0,
    only: Collection[str] = tuple(CHECKS),
    limits_s: Sequence[float] = LIMITS_S,
    progress: Callable[[float], None] | None = None,
) -> list[Finding]:
    """Run the suite over one policy.

    Parameters
    ----------
    policy
        As `make_policy` takes it: a name of the registry, or `path/to/file.py:ClassName`.
    problems
        How many random problems it is given, beside those of the single checks.
    seed
        Of the problems, and handed to the policy.
    only
        Names of the checks to run, of `CHECKS`.
    limits_s
        The time limits that are tried.
    progress
        Called before each check with the share that is done.

    Returns
    -------
    list of Finding
        One per check, in the order of `CHECKS`.

    Raises
    ------
    InputError
        If there is no such policy.
    """
    made = make_policy(policy)
    bench = Bench(policy, made, problems, seed, limits_s)
    chosen = [check_name for check_name in CHECKS if check_name in only]
    findings = []
    for number, check_name in enumerate(chosen):
        if progress is not None:
            progress(number / len(chosen))
        findings.append(_finding(bench, check_name))
    return findings


def _finding(bench: Bench, check_name: str) -> Finding:
    bench.complaints, bench.trials = [], 0
    try:
        detail = CHECKS[check_name](bench)
    except _Skipped as reason:
        if not bench.complaints:
            return Finding(name=check_name, status=Status.SKIPPED, detail=str(reason))
        detail = ""
    except _Broken as error:
        bench.complaints.append(str(error))
        detail = ""
    if not bench.complaints:
        return Finding(name=check_name, status=Status.PASSED, detail=detail)
    more = len(bench.complaints) - 1
    detail = bench.complaints[0] + (f" (and {more} more of {bench.trials} trials)" if more else "")
    return Finding(name=check_name, status=Status.FAILED, detail=detail)
