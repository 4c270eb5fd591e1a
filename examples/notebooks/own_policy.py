# %% [markdown]
# # Your own policy, under stress
# A policy is a name and a method `plan`. This one plans for 40 % longer delays than it is told, and is put beside AGH
# in a world that is worse than planned. Whatever it returns goes through the independent checker.

# %%
from dataclasses import replace

import experiments.api as tokenfleet
from policies.heuristics.adaptive import Agh
from policies.heuristics.routing import route
from simulator.planning.plan import build_plan, plan_arrays


class Patient:
    """AGH's fleet for delays 40 % longer than told, routed for the delays as told."""

    name = "patient"

    def plan(self, problem, *, incumbent, stop, seed):
        slower = replace(problem, delay_s=1.4 * problem.delay_s)
        made = Agh().plan(slower, incumbent=incumbent, stop=stop, seed=seed)
        arrays = route(problem, plan_arrays(slower, made).replicas)
        return build_plan(problem, arrays, policy=self.name, status=made.status, seconds=made.seconds)


# %%
problem = tokenfleet.problem_of(tokenfleet.load_scenario("paper-base"), period_h=24.0)
for policy in (Agh(), Patient()):
    for row in tokenfleet.stress(problem, policy, factors=(1.0, 1.3), inflated=("delay",)).rows:
        if row["way"] == "rerouted":
            told = f"{row['cost_usd']:.2f} USD, {row['unmet_share']:.1%} unmet"
            print(f"{policy.name} at {row['factor']:g} times the delay: {told}")
