"""Whether a plan from elsewhere can run in a scenario."""

from experiments.scenario.scenario import Scenario
from simulator.errors import InputError
from simulator.planning.plan import Plan
from simulator.validation import closest

SHARE_TOLERANCE = 1e-6


def refuse_unfit_plan(scenario: Scenario, plan: Plan) -> None:
    """Refuse a plan that this scenario cannot run.

    Raises
    ------
    InputError
        Naming every unknown model, tier or query type, every route to something that is not deployed, and every query
        type whose shares do not sum to one.
    """
    problems = []
    known = {c.deployment_key for c in scenario.configurations}
    for d, deployment in enumerate(plan.deployments):
        c = deployment.configuration
        if c.model not in scenario.catalog.models:
            problems.append(f"deployments[{d}].model {c.model!r}: {closest(c.model, scenario.catalog.models)}")
        elif c.tier not in scenario.catalog.tiers:
            problems.append(f"deployments[{d}].tier {c.tier!r}: {closest(c.tier, scenario.catalog.tiers)}")
        elif c.deployment_key not in known:
            problems.append(
                f"deployments[{d}]: {c.model} on {c.tier} with tensor_parallel {c.tensor_parallel} and "
                f"pipeline_parallel {c.pipeline_parallel} is no configuration of scenario {scenario.name}"
            )
    deployed = {deployment.configuration.pair for deployment in plan.deployments}
    names = [rule.name for rule in scenario.types]
    total = dict.fromkeys(names, 0.0)
    for r, route in enumerate(plan.routing):
        if (route.model, route.tier) not in deployed:
            problems.append(f"routing[{r}]: {route.model} on {route.tier} is not among the plan's deployments")
        if route.query_type not in total:
            problems.append(f"routing[{r}].query_type {route.query_type!r}: {closest(route.query_type, names)}")
        else:
            total[route.query_type] += route.share
    for u, (name, share) in enumerate(plan.unmet):
        if name not in total:
            problems.append(f"unmet[{u}].query_type {name!r}: {closest(name, names)}")
        else:
            total[name] += share
    problems += [
        f"shares of query type {name!r} sum to {share:.6g}, expected 1"
        for name, share in total.items()
        if abs(share - 1) > SHARE_TOLERANCE
    ]
    if problems:
        raise InputError(f"plan {plan.problem}: {problem}" for problem in problems)
