"""From a tight budget to an ample one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Numbers, ProblemOption, ScenarioOption, factors, numbers
from experiments.show.parts import Line, LineChart, Section, Table, merged
from experiments.studies.shared.conduct import Asked, Design, ground_option, study
from experiments.studies.shared.view import (
    Claim,
    cell,
    claims_table,
    curve,
    mean_of,
    policies_of,
    rows_where,
    values_of,
    verdict,
)
from experiments.studies.stress import DEFAULT_SPREAD
from experiments.sweep.specification import Run

POLICIES = ("gh", "agh", "agh+", "exact", "headroom[1.3:exact]")
CRITICAL, PENALISED = "critical budget", "critical budget, high penalty"


@study(policies=POLICIES, seeds=5)
def command(
    asked: Asked,
    problem: ProblemOption = None,
    scenario: ScenarioOption = "paper-base",
    shares: Annotated[Numbers, numbers("--shares", "Budgets, comma-separated, relative to the problem's.")] = Numbers(
        (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
    ),
    factors: Annotated[Numbers, factors("--factors", "Stress under which the plans are seen.")] = Numbers((1.0, 1.5)),
    penalty: Annotated[float, typer.Option(min=1, help="Factor on the unmet penalty of the high-penalty case.")] = 10.0,
    spread: Annotated[float, typer.Option(min=0, help="Sigma of the demand between seeds.")] = DEFAULT_SPREAD,
) -> Design:
    """Cost, unmet demand and violations as the budget goes from tight to ample, with the critical budget found.

    Example: `tokenfleet study budget --policy agh --policy exact --seeds 2 --out runs/budget`
    """
    names = asked.policies
    period: dict[str, Any] = {} if problem is not None else {"period_h": 24.0}
    ground, files = ground_option(problem, scenario, spread=spread, **period)
    common = {"factors": factors, "inflated": ["both"], "simulate": False}
    runs = [
        Run(
            task="stress",
            parameters={**common, "ground": {**ground, "budget_share": share}, "seed": seed, "policy": name},
            label=f"{name}, budget {share:.0%}, seed {seed}",
        )
        for name in names
        for share in shares
        for seed in range(asked.seeds)
    ]
    runs += [
        Run(
            task="critical_budget",
            parameters={
                "ground": {**ground, **({"penalty_factor": penalty} if setting == PENALISED else {})},
                "factors": factors,
                "seed": seed,
                "policy": name,
                "about": {"setting": setting},
            },
            label=f"{name}, {setting}, seed {seed}",
        )
        for name in names
        for setting in (CRITICAL, PENALISED)
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={
            **common,
            "ground": ground,
            "policies": names,
            "shares": shares,
            "penalty": penalty,
            "seeds": asked.seeds,
        },
        files=files,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """Curves over the budget, and what the critical budgets are."""
    swept = rows_where(frame, setting=None)
    routed = rows_where(swept, way="rerouted")
    worst = max(marker["options"]["factors"])
    rows, critical = [], []
    for policy in policies_of(frame):
        own = rows_where(routed, policy=policy)
        for share in values_of(own, "budget_share"):
            calm = rows_where(own, budget_share=share, factor=1.0)
            hard = rows_where(own, budget_share=share, factor=worst)
            rows.append(
                [
                    policy,
                    f"{share:.0%}",
                    cell(calm, "cost_usd"),
                    cell(calm, "unmet_share", 1, 100),
                    cell(hard, "cost_usd"),
                    cell(hard, "unmet_share", 1, 100),
                ]
            )
        for setting in (CRITICAL, PENALISED):
            here = rows_where(frame, policy=policy, setting=setting)
            planned, hard = rows_where(here, way="planned"), rows_where(here, way="rerouted", factor=worst)
            critical.append(
                [
                    policy,
                    "as stated" if setting == CRITICAL else f"x {marker['options']['penalty']:g}",
                    cell(planned, "budget_share", 1, 100),
                    cell(planned, "cost_usd"),
                    cell(hard, "cost_usd"),
                    cell(hard, "unmet_share", 1, 100),
                ]
            )
    charts = [
        LineChart(
            key=f"budget-{key}",
            title=title,
            x_label="budget over the problem's [%]",
            y_label=label,
            lines=merged(
                [
                    _percent(
                        curve(
                            rows_where(routed, policy=policy, factor=factor),
                            policy,
                            "budget_share",
                            measure,
                            factor=scale,
                        )
                    )
                    for policy in policies_of(routed)
                ]
            ),
            from_zero=True,
        )
        for key, title, label, measure, scale, factor in (
            ("cost", "Cost at nominal by budget", "cost [USD]", "cost_usd", 1.0, 1.0),
            ("unmet", "Unmet demand at nominal by budget", "unmet [%]", "unmet_share", 100.0, 1.0),
            (
                "cost-stressed",
                f"Cost at {worst:g} times the delay and error by budget",
                "cost [USD]",
                "cost_usd",
                1.0,
                worst,
            ),
        )
    ]
    sections = [
        Section(
            title="Budget: from tight to ample",
            tables=[
                Table(
                    title="The critical budget: the smallest under which a policy serves everything",
                    columns=(
                        "policy",
                        "unmet penalty",
                        "budget [%]",
                        "cost [USD]",
                        f"cost at {worst:g}x [USD]",
                        f"unmet at {worst:g}x [%]",
                    ),
                    rows=critical,
                    labels=2,
                    note="In % of the problem's budget, found by bisection to half a percent.",
                )
            ],
            charts=charts,
        ),
        Section(
            title="Every budget",
            tables=[
                Table(
                    title="Cost and unmet demand by budget",
                    columns=(
                        "policy",
                        "budget",
                        "cost [USD]",
                        "unmet [%]",
                        f"at {worst:g}x [USD]",
                        f"unmet [%] at {worst:g}x",
                    ),
                    rows=rows,
                    labels=2,
                )
            ],
            detail=True,
        ),
    ]
    found = claims(frame, timing, marker)
    if found:
        sections.append(Section(title="Beside the paper", tables=[claims_table(found)]))
    return sections


def _percent(line: Line) -> Line:
    return replace(line, x=[100 * x for x in line.x])


def claims(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> Sequence[Claim]:
    """GH and AGH at the critical budget, and with a high penalty."""
    del timing
    worst = max(marker["options"]["factors"])
    found = []
    for setting, published, words in (
        (CRITICAL, {"gh": (1162, 14.2), "agh": (343, 3.7)}, "At the critical budget"),
        (PENALISED, {"gh": (1811, 14.2), "agh": (344, 3.7)}, "With a high penalty at the critical budget"),
    ):
        ours = {
            policy: rows_where(frame, policy=policy, setting=setting, way="rerouted", factor=worst)
            for policy in published
        }
        cost = {policy: mean_of(rows, "cost_usd") for policy, rows in ours.items()}
        gh, agh = cost["gh"], cost["agh"]
        if gh is None or agh is None:
            continue
        share = {policy: 100 * (mean_of(rows, "unmet_share") or 0.0) for policy, rows in ours.items()}
        found.append(
            Claim(
                paper=f"{words}, AGH costs far less under stress than GH",
                published="; ".join(f"{p.upper()} {usd:,} USD, {bad} %" for p, (usd, bad) in published.items()),
                ours=f"GH {gh:,.0f} USD, {share['gh']:.1f} % unmet; AGH {agh:,.0f} USD, {share['agh']:.1f} % unmet "
                f"at {worst:g}x",
                holds=verdict(agh < 0.8 * gh),
            )
        )
    planned = {
        p: mean_of(rows_where(frame, policy=p, setting=CRITICAL, way="planned"), "budget_share")
        for p in ("gh", "agh", "exact")
    }
    known = {policy: share for policy, share in planned.items() if share is not None}
    if known:
        found.append(
            Claim(
                paper="The critical budget is 72 of 100 USD",
                published="72 %",
                ours=", ".join(f"{policy} {share:.0%}" for policy, share in known.items()),
                holds="cannot be judged",
                why="for which policy it is critical is not stated",
            )
        )
    return found
