"""The physical floor: a percentile SLO that a request alone on the fastest hardware breaks cannot be met by any fleet.

Alone on a replica a request of h prompt and f output tokens takes, with the step cost a, b, c, d and token budget B,

    TTFT = a ceil(h / B) + b h        TPOT = a + c + d (h + f / 2)        E2E = TTFT + (f - 1) TPOT
"""

import numpy as np
import numpy.typing as npt

from experiments.measures.quantiles import reached_value
from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import PercentileSlo
from experiments.verify.sample import OfType, Sample
from simulator.delay import StepCost
from simulator.errors import InputError
from simulator.planning.plan import describe

ROOM = 0.8  # of a limit that a request alone may take where it is to have room for waiting


def alone_s(step: StepCost, of_type: OfType, token_budget: int, measure: str) -> npt.NDArray[np.float64]:
    """Time of each request if it were alone, NaN where it has none; `measure` is one of `MEASURES`."""
    steps = np.ceil(np.maximum(of_type.inputs, 1.0) / token_budget)
    ttft_s = steps * step.base_s + step.prefill_s_per_token * of_type.inputs
    tpot_s = (
        step.base_s + step.decode_s_per_sequence + step.context_s_per_token * (of_type.inputs + of_type.outputs / 2)
    )
    match measure:
        case "ttft_s":
            return np.asarray(ttft_s)
        case "tpot_s":
            return np.where(of_type.outputs > 1, tpot_s, np.nan)
        case "e2e_s":
            return np.asarray(ttft_s + np.maximum(of_type.outputs - 1, 0) * tpot_s)
    raise ValueError(f"the time of a request alone is not known by the measure {measure!r}")


def usable_routes(
    scenario: Scenario, sample: Sample, slos: list[tuple[PercentileSlo, ...]], guard: float
) -> npt.NDArray[np.bool_]:
    """Where a type can keep `guard` times its limits, with room for waiting where any configuration has that.

    Parameters
    ----------
    slos
        Of each query type.

    Returns
    -------
    Shape (types, configurations), over `Scenario.configurations`.

    Raises
    ------
    InputError
        With every SLO that no configuration meets, its floor and who sets it; and types whose SLOs no configuration
        meets together.
    """
    configurations = scenario.configurations
    steps = [scenario.step_cost(c.deployment_key) for c in configurations]
    budget = scenario.file.engine.token_budget
    usable = np.ones((len(scenario.types), len(configurations)), dtype=np.bool_)
    roomy = usable.copy()
    problems = []
    for i, (rule, of_type) in enumerate(zip(scenario.types, sample.types, strict=True)):
        impossible = False
        for slo in slos[i] if len(of_type) else ():
            floors = np.array([reached_value(alone_s(step, of_type, budget, slo.measure), slo.level) for step in steps])
            usable[i] &= floors <= guard * slo.limit_s
            roomy[i] &= floors <= ROOM * guard * slo.limit_s
            if floors.min() > guard * slo.limit_s:
                impossible = True
                best = describe(configurations[int(np.argmin(floors))])
                guarded = "" if guard == 1 else f" (with the guard of {guard:g}: {guard * slo.limit_s:.4g} s)"
                problems.append(
                    f"query type {rule.name!r}: {slo}{guarded} cannot be met by any hardware of the scenario: alone on "
                    f"the fastest, {best}, {slo.percentile} of its requests is {floors.min():.4g} s"
                )
        if not usable[i].any() and not impossible:
            names = ", ".join(map(str, slos[i]))
            problems.append(f"query type {rule.name!r}: no configuration of the scenario meets {names} together")
    if problems:
        raise InputError(problems)
    cramped = ~roomy.any(axis=1)
    roomy[cramped] = usable[cramped]
    return roomy
