"""A policy of one's own: `tokenfleet replay --policy examples/cautious.py:Cautious`."""

from dataclasses import replace

from policies.heuristics.adaptive import Agh


class Cautious:
    """AGH for 30 % more load than the forecast says."""

    name = "cautious"

    def plan(self, problem, *, incumbent, stop, seed):
        heavier = replace(problem, load=1.3 * problem.load, kv=1.3 * problem.kv)
        plan = Agh().plan(heavier, incumbent=incumbent, stop=stop, seed=seed)
        return replace(plan, policy=self.name)
