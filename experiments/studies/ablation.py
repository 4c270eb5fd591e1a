"""What each mechanism of the heuristics is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import typer

from experiments.options import ProblemOption, ScenarioOption
from experiments.show.parts import BarChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, ground_option, study
from experiments.studies.shared.view import Claim, cell, claims_table, estimate, mean_of, policies_of, rows_where
from experiments.studies.stress import DEFAULT_SPREAD
from experiments.studies.tasks.planning import SERVED
from experiments.sweep.specification import Run

POLICIES = (
    *("gh", "gh[-m1]", "gh[-m2]", "gh[-m3]"),
    *("agh", "agh[-m1]", "agh[-m2]", "agh[-m3]", "agh[-local]", "agh[-consolidate]", "agh[-local,-consolidate]"),
)


@study(policies=POLICIES, seeds=5)
def command(
    asked: Asked,
    problem: ProblemOption = None,
    scenario: ScenarioOption = "paper-base",
    spread: float = typer.Option(DEFAULT_SPREAD, min=0, help="Sigma of the demand between seeds."),
) -> Design:
    """Heuristics without one of their mechanisms: M1, M2, M3, local search, consolidation.

    Example: `tokenfleet study ablation --seeds 3 --out runs/ablation`
    """
    names = asked.policies
    period: dict[str, Any] = {} if problem is not None else {"period_h": 24.0}
    ground, files = ground_option(problem, scenario, spread=spread, **period)
    runs = [
        Run(task="plan", parameters={"ground": ground, "seed": seed, "policy": name}, label=f"{name}, seed {seed}")
        for name in names
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={"ground": ground, "policies": names, "seeds": asked.seeds},
        files=files,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """Cost with and without each mechanism."""
    rows = []
    for policy in policies_of(frame):
        own = rows_where(frame, policy=policy)
        whole = mean_of(rows_where(frame, policy=policy.partition("[")[0]), "cost_usd")
        cost = mean_of(own, "cost_usd")
        change = "-" if whole is None or cost is None or "[" not in policy else f"{cost / whole - 1:+.1%}"
        rows.append([policy, cell(own, "cost_usd"), change, cell(own, "unmet_share", 2, 100), _plans(own)])
    found = [estimate(rows_where(frame, policy=policy)["cost_usd"].tolist()) for policy in policies_of(frame)]
    sections = [
        Section(
            title="Ablation: heuristics without one of their mechanisms",
            tables=[
                Table(
                    title=f"Cost on {frame['problem'].iloc[0]}",
                    columns=("policy", "cost [USD]", "change", "unmet [%]", "plans accepted"),
                    rows=rows,
                    note="M1 keeps to configurations that meet the limits, M2 ranks by cost per effective coverage, M3 "
                    "raises TP before a deployment is opened. Plans are accepted by the independent checker.",
                )
            ],
            charts=[
                BarChart(
                    key="ablation-cost",
                    title="Cost without a mechanism",
                    y_label="cost [USD]",
                    categories=policies_of(frame),
                    parts={"cost": [None if item is None else item.mean for item in found]},
                    low=[None if item is None else item.low for item in found],
                    high=[None if item is None else item.high for item in found],
                )
            ],
        )
    ]
    bearing = claims(frame, timing, marker)
    if bearing:
        sections.append(Section(title="Beside the paper", tables=[claims_table(bearing)]))
    return sections


def _plans(own: pd.DataFrame) -> str:
    return f"{int(own['feasible'].sum())} of {len(own)}"


def claims(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> Sequence[Claim]:
    """The paper's ablation of AGH."""
    del timing, marker
    whole = mean_of(rows_where(frame, policy="agh"), "cost_usd")
    if whole is None:
        return ()
    found = []
    for switch, published in (
        ("m1", "infeasible (memory, delay)"),
        ("m2", "134.52 USD (+50 %)"),
        ("m3", "infeasible (delay)"),
    ):
        own = rows_where(frame, policy=f"agh[-{switch}]")
        cost = mean_of(own, "cost_usd")
        if cost is None:
            continue
        change = cost / whole - 1
        if switch == "m2":
            holds, why = ("yes", "") if change > 0.2 else ("no", "local search and LP routing make up for it")
        else:
            dropped = mean_of(own, "unmet_share") or 0.0
            if not own["feasible"].all():
                holds, why = "yes", ""
            elif dropped > SERVED:
                holds, why = "in part", f"the routing LP drops {dropped:.1%} of the demand rather than break a limit"
            else:
                holds, why = "no", "the routing LP keeps every limit and serves all; what is lost is cost"
        found.append(
            Claim(
                paper=f"AGH without {switch.upper()}",
                published=published,
                ours=f"{cost:,.2f} USD ({change:+.1%}), {_plans(own)} plans accepted",
                holds=holds,
                why=why,
            )
        )
    return found
