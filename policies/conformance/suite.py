"""The conformance suite: its checks by name, and a run of them over one policy."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from policies.conformance.answers import feasible, honest, name, pure
from policies.conformance.bench import Bench, Broken, Skipped
from policies.conformance.demands import empty, incumbent, infeasible, time_limit
from policies.conformance.repeats import deterministic
from policies.registry import make_policy

LIMITS_S = (0.5, 2.0)  # of the check of the time limit


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
    except Skipped as reason:
        if not bench.complaints:
            return Finding(name=check_name, status=Status.SKIPPED, detail=str(reason))
        detail = ""
    except Broken as error:
        bench.complaints.append(str(error))
        detail = ""
    if not bench.complaints:
        return Finding(name=check_name, status=Status.PASSED, detail=detail)
    more = len(bench.complaints) - 1
    detail = bench.complaints[0] + (f" (and {more} more of {bench.trials} trials)" if more else "")
    return Finding(name=check_name, status=Status.FAILED, detail=detail)
