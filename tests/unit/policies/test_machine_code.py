"""The planners' machine code where Numba has no folder for its cache."""

import subprocess
import sys

SCRIPT = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from policies.checking.random_problem import random_problem
from policies.registry import make_policy
from simulator.planning.policy import StoppingRule
for policy in ("gh", "agh+"):
    plan = make_policy(policy).plan(random_problem(3, 3, 3), incumbent=None, stop=StoppingRule(), seed=0)
    print(plan.status)
"""


def test_without_a_cache_it_is_compiled_anew():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.split(), done.stderr) == (["feasible", "optimal"], "")
