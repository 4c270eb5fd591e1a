# %% [markdown]
# # Your own policy, under stress
# A policy is a name and a method `plan`. This one plans for 40 % longer delays than it is told, and is put beside AGH
# in a world that is worse than planned. Whatever it returns goes through the independent checker.

# %%
from dataclasses import replace

from experiments.replay.controller import nominal_problem
from experiments.replay.stress import rerouted
from experiments.scenario.scenario import load_scenario
from policies.checking.checked_plan import checked_plan
from policies.heuristics.adaptive import Agh
from policies.heuristics.routing import route
from simulator.planning.plan import build_plan, plan_arrays
from simulator.planning.policy import StoppingRule


class Patient:
    """AGH's fleet for delays 40 % longer than told, routed for the delays as told."""

    name = "patient"

    def plan(self, problem, *, incumbent, stop, seed):
        slower = replace(problem, delay_s=1.4 * problem.delay_s)
        made = Agh().plan(slower, incumbent=incumbent, stop=stop, seed=seed)
        arrays = route(problem, plan_arrays(slower, made).replicas)
        return build_plan(problem, arrays, policy=self.name, status=made.status, seconds=made.seconds)


# %%
problem = nominal_problem(load_scenario("paper-base"), period_h=24.0)
for policy in (Agh(), Patient()):
    plan, report = checked_plan(policy, problem, incumbent=None, stop=StoppingRule(), seed=0)
    assert report is not None
    assert report.accepted
    for factor in (1.0, 1.3):
        found = rerouted(problem, plan_arrays(problem, plan), factor, 1.0)
        told = f"{found['cost_usd']:.2f} USD, {found['unmet_share']:.1%} unmet"
        print(f"{policy.name} at {factor:g} times the delay: {told}")
