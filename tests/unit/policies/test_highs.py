"""HiGHS, made silent: standard output is for results."""

import subprocess
import sys

import highspy
import numpy as np

from policies.checking.random_problem import random_problem
from policies.registry import make_policy
from simulator.planning.policy import StoppingRule

SCRIPT = """
import os
{before}
import numpy as np
from policies.highs import new_solver
solver = new_solver({settings})
solver.addVars(2, np.zeros(2), np.ones(2))
solver.changeColCost(0, -1.0)
solver.run()
{after}
os.write({fd}, b"%g" % solver.getInfo().objective_function_value)
"""


def run(before="", settings="", after="", fd=1):
    code = SCRIPT.format(before=before, settings=settings, after=after, fd=fd)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_first_solver_of_a_process_is_silent():
    """HiGHS 1.16 prints its name from the constructor of the first one."""
    assert run() == ("-1", "")


def test_without_a_standard_output():
    assert run(before="os.close(1)", fd=2) == ("", "-1")


def test_settings_come_on_top():
    out, _ = run(settings="output_flag=True")
    assert out.startswith("LP") or "Running HiGHS" in out


def test_policies_print_nothing():
    code = """
from policies.checking.random_problem import random_problem
from policies.registry import make_policy
from simulator.planning.policy import StoppingRule
for policy in ("milp", "exact", "agh+", "agh", "gh", "lpr", "dvr", "hf"):
    stop = StoppingRule(time_limit_s=20)
    make_policy(policy).plan(random_problem(3, 3, 3), incumbent=None, seed=0, stop=stop)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_another_pool_of_threads_in_the_process_does_no_harm():
    """HiGHS refuses to run with one thread after somebody ran it with two."""
    other = highspy.Highs()
    other.setOptionValue("output_flag", False)
    other.setOptionValue("threads", 2)
    other.addVars(1, np.zeros(1), np.ones(1))
    highspy.Highs.resetGlobalScheduler(True)
    other.run()
    for policy in ("agh", "lpr", "milp", "exact", "agh+"):
        problem = random_problem(3, 3, 3)
        assert make_policy(policy).plan(problem, incumbent=None, stop=StoppingRule(), seed=0).cost_usd > 0
        other.resetGlobalScheduler(True)
        other.run()
