"""Each policy against perfect information, and where the rest is lost.

A ladder of worlds from the oracle down to what really happens; each step adds one thing that an oracle does not have:

1. *bound*: the demand of every interval is known, fleets change at once for nothing, plans are exact, no headroom;
2. *headroom*: the same with the scenario's cap on load and margin on demand;
3. *simulated*: the exact policy with the true arrival rates, fleets that change at once, in the simulation: queues;
4. *planning*: the policy itself instead of the exact one;
5. *forecast*: its own forecast instead of the true rates;
6. *loading*: weights take the time that they take to load;
7. *moving*: machines take the time that they take to come: what really happens.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Duration, ScenarioOption, duration
from experiments.scenario.scenario import load_scenario
from experiments.show.parts import BarChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, study
from experiments.studies.shared.replays import arrivals
from experiments.studies.shared.view import cell, mean_of, rows_where
from experiments.sweep.specification import Run

POLICIES = ("gh", "agh", "agh+")
AT_ONCE = {"engine.provisioning_s": 0.0, "engine.load_gb_per_s": 1e9}
BOUND, HEADROOM, SIMULATED = "bound", "headroom", "simulated"
RUNGS: dict[str, tuple[str | None, dict[str, Any]]] = {  # forecast (None: the scenario's), changes of the scenario
    "planning": ("oracle", AT_ONCE),
    "forecast": (None, AT_ONCE),
    "loading": (None, {"engine.provisioning_s": 0.0}),
    "moving": (None, {}),
}
LADDER = (BOUND, HEADROOM, SIMULATED, *RUNGS)


@study(policies=POLICIES, seeds=3)
def command(
    asked: Asked,
    trace: Annotated[list[str] | None, typer.Argument(help="Trace files; none: the scenario's arrivals.")] = None,
    scenario: ScenarioOption = "azure-2023",
    interval: Annotated[Duration, duration("--interval", "Time between re-plans.")] = Duration("5m"),
) -> Design:
    """Each policy against the oracle, and where the rest is lost, step by step.

    Example: `tokenfleet study regret --policy gh --seeds 1 --out runs/regret`
    """
    names = asked.policies
    found, files = arrivals(asked.terminal, scenario, trace, None, None, None)
    load_scenario(scenario)
    common = {**found, "interval_s": interval.seconds}

    def run(task: str, rung: str, name: str, seed: int, forecast: str | None, changes: Mapping[str, Any]) -> Run:
        parameters = {
            **common,
            "policy": name,
            "seed": seed,
            "changes": {**common.get("changes", {}), **changes},
            "about": {"setting": rung},
            **({"forecast": forecast} if forecast else {}),
        }
        return Run(task=task, parameters=parameters, label=f"{name}, {rung}, seed {seed}")

    none = {"limits.cap": 1.0, "forecast.margin": 1.0}
    runs = []
    for seed in range(asked.seeds):
        runs.append(run("oracle", BOUND, "exact", seed, None, none))
        runs.append(run("oracle", HEADROOM, "exact", seed, None, {}))
        runs.append(run("replay", SIMULATED, "exact", seed, "oracle", AT_ONCE))
        runs += [
            run("replay", rung, name, seed, forecast, changes)
            for name in names
            for rung, (forecast, changes) in RUNGS.items()
        ]
    return Design(
        runs=runs,
        options={**common, "policies": names, "seeds": asked.seeds},
        files=files,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """The ladder of each policy: what each step adds to cost, GPU hours and violations."""
    del timing
    oracle = {rung: rows_where(frame, policy="exact", setting=rung) for rung in (BOUND, HEADROOM, SIMULATED)}
    least, gpu_hours = mean_of(oracle[BOUND], "bound_usd"), mean_of(oracle[BOUND], "gpu_hours")
    rows, text, steps = [], [], {}
    names = [name for name in marker["options"]["policies"] if len(rows_where(frame, policy=name, setting="moving"))]
    for name in names:
        ladder = {**oracle, **{rung: rows_where(frame, policy=name, setting=rung) for rung in RUNGS}}
        before = least
        for rung, own in ladder.items():
            cost = least if rung == BOUND else mean_of(own, "cost_usd")
            added = None if cost is None or before is None else cost - before
            steps[name, rung] = added if rung != BOUND else cost
            shown = cell(own, "bound_usd") if rung == BOUND else cell(own, "cost_usd")
            change = "" if rung == BOUND or added is None or not least else f"{100 * added / least:+.1f}"
            late = "-" if rung in (BOUND, HEADROOM) else cell(own, "violation_share", 2, 100)
            rows.append([name, rung, shown, change, cell(own, "gpu_hours"), late])
            before = cost
        final = mean_of(ladder["moving"], "cost_usd")
        if final is not None and least and gpu_hours:
            hours = mean_of(ladder["moving"], "gpu_hours") or 0.0
            violated = mean_of(ladder["moving"], "violation_share") or 0.0
            text.append(
                f"{name} costs {final:.2f} USD, {final / least:.2f} times the bound of {least:.2f} USD, with "
                f"{hours:.1f} GPU hours against {gpu_hours:.1f}; {100 * violated:.1f} % of its requests are violated."
            )
    chart = BarChart(
        key="regret-cost",
        title="Cost of each policy above the perfect-information upper bound, by where it is lost",
        y_label="cost [USD]",
        categories=names,
        parts={rung: [steps[name, rung] for name in names] for rung in LADDER},
        note="A step below zero is cheaper than the one before, as a rule at the price of more violations.",
    )
    return [
        Section(
            title="Regret: each policy against the perfect-information upper bound",
            text=text,
            tables=[
                Table(
                    title="From perfect information to what really happens, one step at a time",
                    columns=("policy", "step", "cost [USD]", "added [% of the bound]", "GPU h", "violated [%]"),
                    rows=rows,
                    labels=2,
                    note="The bound is what perfect information could do: exact plans of the true demand, fleets that "
                    "change at once, no headroom; its costs are planned, without queues. Each further row adds one "
                    f"thing that a real operator has to bear: {', '.join(LADDER[1:])}.",
                )
            ],
            charts=[chart],
        )
    ]
