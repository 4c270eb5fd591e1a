"""The check of determinism, which asks the policy again in this process and in a new one."""

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace

from policies.checking.random_problem import random_problem, small_problem
from policies.conformance.bench import PATIENCE_S, Bench, Broken, OutOfPatience, difference, patience
from policies.registry import make_policy
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem


def deterministic(bench: Bench) -> str:
    """Same arguments, same plan: again in this process, after other problems, and in a new process."""
    first = _answers(bench.policy, bench.seed)
    again = _answers(bench.policy, bench.seed, backwards=True)
    afresh = _answers_afresh(bench)
    for name, answer in first.items():
        with bench.trial(name):
            for other, where in ((again[name], "after other problems"), (afresh[name], "in a new process")):
                if other != answer:
                    raise Broken(f"expected the same plan {where}, it made another: {difference(answer, other)}")
    return f"the same {len(first)} answers again after other problems, and in a new process"


def _repeated(seed: int) -> list[PlanningProblem]:
    """The problems of the check of determinism, which a new process makes anew from the seed."""
    return [*(small_problem(seed, number) for number in range(4)), random_problem(types=8, seed=seed)]


def _answers(policy: Policy, seed: int, *, backwards: bool = False) -> dict[str, str]:
    """What the policy answers to each problem of the check of determinism, as text without machine time."""
    answers = {}
    for problem in sorted(_repeated(seed), key=lambda problem: problem.name, reverse=backwards):
        try:
            with patience(PATIENCE_S):
                plan = policy.plan(problem, incumbent=None, stop=StoppingRule(), seed=seed)
            answers[problem.name] = repr(replace(plan, seconds=None))
        except OutOfPatience:
            answers[problem.name] = "no answer"
        except (Exception, SystemExit) as error:
            answers[problem.name] = f"{type(error).__name__}: {error}"
    return answers


def _answers_afresh(bench: Bench) -> dict[str, str]:
    """The same from a new process, which orders sets in another way and remembers nothing."""
    command = [sys.executable, "-c", "from policies.conformance.repeats import tell_answers; tell_answers()"]
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
        raise Broken(f"a new process had not answered after {5 * PATIENCE_S:.3g} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Broken(f"a new process ended with exit code {done.returncode}: {last}")
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def tell_answers() -> None:
    """Entry point of the new process: the answers as one line of JSON."""
    text, seed = sys.argv[1:]
    with redirect_stdout(sys.stderr):
        answers = _answers(make_policy(text), int(seed))
    sys.stdout.write("\n" + json.dumps(answers) + "\n")
