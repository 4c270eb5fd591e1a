"""`agh+`: fleets ranked by the duals of the root bound, bounded before they are routed; anytime, with a bound.

What makes greedy orders go wrong is that the first type pays the whole rent of a deployment that others will fill. The
duals of the relaxed problem (docs/planning.md) say what each deployment is worth to all types together:

1. begin with GH's plan, with serving nothing, and with the fleet in force;
2. search around the best by guessed prices, each type worth a few times its amortised cost;
3. price all deployments by column generation; round the relaxed solution;
4. by those prices, search around the best and look through singles to quadruples of the best-priced deployments, each
   fleet bounded first (`fleet_bound.py`), so that of thousands a few are routed;
5. with what is left of the effort, the tree of `exact`, which rounds the relaxed solution of each part and searches
   around each better plan.

It can stop at any time with the best plan so far and a bound: that of the tree, or of the root. Without a time limit
the effort is counted in fleets that are routed (some hundred bounds are worth one), which makes it deterministic.

Re-planning: where the problem prices moving (`PlanningProblem.moving`), leaving the fleet in force is part of what is
minimised. No bound is stated then, because it would be one of another sum than the cost of the plan.
"""

from dataclasses import dataclass, replace

from policies.exact.policy import Exact, settled
from policies.exact.search import Search
from policies.heuristics.moving import Moving
from simulator.planning.plan import Plan, PlanStatus
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import PlanningProblem

EFFORT = 500  # fleets that are routed if nobody says otherwise: about a second at 20x20x20
GUESS_SHARE = 0.15  # of the time, for a local search before there are prices
PRICING_SHARE = 0.5  # of the time, for the prices
LOCAL_SHARE = 0.4  # of the effort, for the local search at the root


@dataclass(frozen=True, slots=True)
class AghPlus:
    """Anytime heuristic on the prices of the root bound."""

    name: str = "agh+"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """The best plan that the effort or the time allows.

        Raises
        ------
        InfeasibleError
            If the problem has no plan.
        RunError
            If the effort or the time is up before any plan is found.
        """
        effort = stop.effort
        if effort is None and stop.time_limit_s is None:
            effort = EFFORT
        moving = Moving.of(problem, incumbent)
        search = Search(problem, replace(stop, effort=effort), seed, self.name, moving)
        if not len(search.options):
            return Exact(name=self.name).plan(problem, incumbent=None, stop=stop, seed=seed)  # nothing to search
        most = 10**9 if effort is None else int(LOCAL_SHARE * effort)  # routings of one local search
        search.begin(incumbent)
        search.guess(most, GUESS_SHARE)
        search.price(PRICING_SHARE)
        search.look_around(most)
        plan = settled(search, search.branch())
        if moving.free:
            return plan
        status = plan.status if plan.status is PlanStatus.TIME_LIMIT else PlanStatus.FEASIBLE
        return replace(plan, bound_usd=None, status=status)
