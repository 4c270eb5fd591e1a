"""Each check of the conformance suite can fail, says why in one sentence, and lets a good policy pass."""

import json

import pytest

from policies.checking.random_problem import small_problem
from policies.conformance import bench
from policies.conformance.suite import CHECKS, Status, run_checks

MINE = """
import os, sys, time
from dataclasses import replace
import numpy as np
from policies.heuristics.greedy import Gh
from simulator.errors import InfeasibleError, RunError
from simulator.planning.plan import PlanStatus

class Mine:
    name = "mine"
    calls = 0

    def plan(self, problem, *, incumbent, stop, seed):
        self.calls += 1
        plan = replace(Gh().plan(problem, incumbent=None, stop=stop, seed=seed), policy=self.name)
        {body}
        return plan
"""
NEVER = MINE.replace("plan = replace(Gh()", "{body}\n        plan = replace(Gh()", 1).replace(
    "        {body}\n        return", "        return"
)


@pytest.fixture
def policy_file(tmp_path):
    """Write a policy that is GH with some lines of its own, after or before it plans; gives `path:Mine`."""

    def write(body="pass", *, template=MINE):
        (tmp_path / "mine.py").write_text(template.replace("{body}", body.replace("\n", "\n        ")))
        return f"{tmp_path / 'mine.py'}:Mine"

    return write


def found(policy, check, problems=4):
    """The finding of one check."""
    (finding,) = run_checks(policy, problems=problems, only=[check], limits_s=[0.05])
    assert finding.name == check
    assert "\n" not in finding.detail
    assert "Traceback" not in finding.detail
    return finding


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_policy_passes(policy_file, check):
    assert found(policy_file(), check).status is Status.PASSED


BROKEN = {
    "no routing": ("feasible", "plan = replace(plan, routing=())", "sum of shares"),
    "a stranger's names": (
        "feasible",
        "plan = replace(plan, unmet=(('nobody', 1.0),))",
        "no query type 'nobody'",
    ),
    "no plan but None": ("feasible", "return None", "expected a Plan, it returned a NoneType"),
    "a plan of nothing": ("feasible", "plan = replace(plan, routing=None)", "can be read: TypeError"),
    "crash": ("feasible", "raise ValueError('first line\\nsecond line')", "ValueError: first line second line (/"),
    "exit": ("feasible", "sys.exit(3)", "it raised SystemExit: 3"),
    "a lower cost": ("honest", "plan = replace(plan, cost_usd=0.9 * plan.cost_usd)", "expected the cost"),
    "a bound above the optimum": ("honest", "plan = replace(plan, bound_usd=plan.cost_usd)", "expected a bound"),
    "a false optimum": ("honest", "plan = replace(plan, status=PlanStatus.OPTIMAL)", "expected the optimum"),
    "memory": (
        "deterministic",
        "plan = replace(plan, cost_usd=plan.cost_usd + self.calls)",
        "expected the same plan after other problems",
    ),
    "process": (
        "deterministic",
        "plan = replace(plan, cost_usd=plan.cost_usd + os.getpid())",
        "expected the same plan in a new process",
    ),
    "query type": (
        "pure",
        "object.__setattr__(problem.query_types[0], 'delay_slo_s', 9.0)",
        "expected the problem as it was, it changed query_types",
    ),
    "array": ("pure", "problem.load.setflags(write=True)\nproblem.load[:] += 1", "it changed load"),
    "derived array": ("pure", "problem.rent_usd[:] += 1", "it changed rent_usd"),
    "incumbent": (
        "pure",
        "if incumbent: object.__setattr__(incumbent, 'cost_usd', 0.0)",
        "expected the incumbent as it was",
    ),
    "sleep": (
        "time limit",
        "if stop.time_limit_s > 0.01: time.sleep(0.6)",
        "random-0, limit 0.05 s: expected an answer after at most 0.255 s, it took 0.6",
    ),
    "no plan in little time": (
        "time limit",
        "if stop.time_limit_s < 0.01: raise RunError('no time')",
        "random-0, limit 0.001 s: expected a plan, it raised RunError: no time",
    ),
    "refuse": (
        "incumbent",
        "if incumbent: raise ValueError('what is this?')",
        "with its own plan as incumbent, expected a plan or an InfeasibleError, it raised ValueError: what is this?",
    ),
    "other demand": (
        "incumbent",
        "if incumbent: plan = replace(incumbent, policy='mine')",
        "with its plan for 5 % other demand as incumbent, expected a plan that the checker accepts",
    ),
    "keep": ("incumbent", "if incumbent: return incumbent", "it kept the incumbent of another catalog"),
    "one type": (
        "empty",
        "if len(problem.query_types) == 1: 1 / 0",
        "one type: expected a plan or an InfeasibleError, it raised ZeroDivisionError",
    ),
    "another's plan": ("name", "plan = replace(plan, policy='gh')", "expected a plan of policy 'mine', it says 'gh'"),
    "another problem": ("name", "plan = replace(plan, problem='p')", "it says 'p'"),
    "NumPy": (
        "name",
        "plan = replace(plan, deployments=[replace(d, replicas=np.int64(d.replicas)) for d in plan.deployments])",
        "TypeError: Object of type int64",
    ),
    "lists": ("name", "plan = replace(plan, routing=list(plan.routing))", "another came in routing"),
}


@pytest.mark.parametrize(("check", "body", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_policy_fails(policy_file, check, body, told):
    finding = found(policy_file(body), check)
    assert finding.status is Status.FAILED
    assert told in finding.detail


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("if problem.budget_usd == 0: raise RunError('no')", "expected an InfeasibleError, it raised RunError: no"),
        ("if problem.budget_usd == 0: raise InfeasibleError('')", "raised InfeasibleError without one"),
        ("if problem.budget_usd == 0: problem = replace(problem, budget_usd=1e9)", "it returned a plan of"),
    ],
)
def test_to_hide_that_there_is_no_plan_fails(policy_file, body, told):
    finding = found(policy_file(body, template=NEVER), "infeasible")
    assert finding.status is Status.FAILED
    assert told in finding.detail


def test_to_find_no_plan_is_excused_only_under_unmet_caps(policy_file):
    caps = [small_problem(0, number).unmet_cap.min() for number in range(20)]
    capped = policy_file("if problem.unmet_cap.min() < 1: raise InfeasibleError('too hard')", template=NEVER)
    finding = found(capped, "feasible", problems=20)
    assert finding.status is Status.PASSED
    assert f"planned {sum(cap >= 1 for cap in caps)} of 20" in finding.detail
    assert "missed a plan of" in finding.detail
    finding = found(policy_file("raise InfeasibleError('too hard')", template=NEVER), "feasible", problems=20)
    assert finding.status is Status.FAILED
    assert "as all demand may stay unmet, it raised InfeasibleError: too hard" in finding.detail


def test_a_policy_that_hangs_is_given_up(policy_file, monkeypatch):
    monkeypatch.setattr(bench, "PATIENCE_S", 0.2)
    finding = found(policy_file("while True: pass"), "feasible", problems=1)
    assert finding.status is Status.FAILED
    assert "it had not returned after 0.2 s" in finding.detail


@pytest.mark.parametrize("check", ["honest", "name"])
def test_where_no_plan_was_made_there_is_nothing_to_judge(policy_file, check):
    assert found(policy_file("raise ValueError('no')"), check).status is Status.SKIPPED


def test_all_of_one_failure_are_counted(policy_file):
    assert "(and 3 more of 4 trials)" in found(policy_file("raise ValueError('no')", template=NEVER), "feasible").detail


# -- the command --------------------------------------------------------------------------------------------------


def test_a_good_policy_ends_with_0_and_one_object(run_cli, policy_file):
    done = run_cli("vet", policy_file("print('thinking')"), "--problems", 2, "--seed", 3, "--json")
    assert done.code == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["passed"], told["problems"], told["seed"]) == (True, 2, 3)
    assert told["policy"].endswith("mine.py:Mine")
    assert [check["name"] for check in told["checks"]] == list(CHECKS)
    assert all(set(check) == {"name", "status", "detail"} for check in told["checks"])


def test_a_crash_ends_with_1_and_one_sentence(run_cli, policy_file):
    done = run_cli("vet", policy_file("raise ValueError('no such [luck]')"), "--problems", 1)
    assert done.code == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "no such [luck]" in done.stdout
    assert "2 skipped of 9 checks, seed 0" in done.stdout


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("nobody", "unknown policy 'nobody'"),
        ("nowhere/mine.py:Mine", "no such file: nowhere/mine.py"),
        ("{folder}/mine.py:Yours", "has no class 'Yours'"),
        ("{folder}/mine.py:PlanStatus", "cannot be made without arguments"),
        ("{folder}/mine.py:RunError", "expected an attribute `name` and a method `plan`"),
    ],
)
def test_what_is_no_policy_ends_with_2(run_cli, policy_file, tmp_path, policy, told):
    policy_file()
    done = run_cli("vet", policy.format(folder=tmp_path))
    assert (done.code, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_number_of_problems_is_positive(run_cli):
    assert run_cli("vet", "gh", "--problems", 0).code == 2
