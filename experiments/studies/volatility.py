"""Random-walk demand: re-planned or planned once."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pandas as pd

from experiments.options import Duration, Numbers, ProblemOption, ScenarioOption, duration, numbers
from experiments.show.parts import LineChart, Section, Table
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
from experiments.sweep.specification import Run
from simulator.errors import InputError

POLICIES = ("gh", "agh", "agh+", "milp", "exact")
EFFORT = 30  # fleets that agh+ routes for a plan: there are 288 plans a day
GAP = 0.005  # at which milp and exact stop


@study(policies=POLICIES, seeds=3)
def command(
    asked: Asked,
    problem: ProblemOption = None,
    scenario: ScenarioOption = "paper-base",
    sigmas: Annotated[
        Numbers, numbers("--sigmas", "Comma-separated, of the logarithm of a demand rate in each interval.")
    ] = Numbers((0.02, 0.04, 0.05, 0.08)),
    interval: Annotated[
        Duration, duration("--interval", "Time between re-plans, and between steps of the demand.")
    ] = Duration("5m"),
    duration: Annotated[
        Duration, duration("--duration", "How long demand drifts: a whole number of intervals.")
    ] = Duration("24h"),
) -> Design:
    """Random-walk demand: re-planning every interval against planning once, under each policy.

    Example: `tokenfleet study volatility --policy gh --policy agh --sigmas 0.04 --out runs/volatility`
    """
    names = asked.policies
    step_s, steps = whole_intervals(interval, duration)
    ground, files = ground_option(problem, scenario)
    common = {
        "ground": ground,
        "step_s": step_s,
        "steps": steps,
        "weight": 0.0,
        "charge_moving": False,
        "effort": EFFORT,
        "relative_gap": GAP,
    }
    runs = [
        Run(
            task="rolling_horizon",
            parameters={**common, "policy": name, "seed": seed, "sigma": sigma, "interval_s": interval_s},
            label=f"{name}, sigma {sigma:g}, {'once' if interval_s is None else f'every {interval}'}, seed {seed}",
        )
        for name in names
        for sigma in sigmas
        for interval_s in (step_s, None)
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={**common, "policies": names, "sigmas": sigmas, "seeds": asked.seeds},
        files=files,
    )


def whole_intervals(interval: Duration, duration: Duration) -> tuple[float, int]:
    """Length and number of the intervals.

    Raises
    ------
    InputError
        If the duration is no whole number of intervals.
    """
    step_s, duration_s = interval.seconds, duration.seconds
    steps = round(duration_s / step_s)
    if steps < 1 or abs(steps * step_s - duration_s) > 1e-9 * duration_s:
        raise InputError(f"--duration: {duration} is no whole number of intervals of {interval}")
    return step_s, steps


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """Cost of both ways at every sigma."""
    rows, lines = [], []
    for policy in policies_of(frame):
        own = rows_where(frame, policy=policy)
        for sigma in values_of(own, "sigma"):
            here = rows_where(own, sigma=sigma)
            often, once = here[here["interval_s"].notna()], here[here["interval_s"].isna()]
            change = _change(often, once)
            rows.append(
                [
                    policy,
                    f"{sigma:g}",
                    cell(often, "cost_usd"),
                    cell(once, "cost_usd"),
                    "-" if change is None else f"{change:+.1%}",
                    cell(often, "unmet_share", 2, 100),
                    cell(once, "unmet_share", 2, 100),
                    cell(often, "moving_usd"),
                ]
            )
        often, once = own[own["interval_s"].notna()], own[own["interval_s"].isna()]
        lines.append(curve(often, f"{policy}, re-planned", "sigma", "cost_usd", group=policy))
        lines.append(curve(once, f"{policy}, once", "sigma", "cost_usd", group=policy, dashed=True))
    step_s = marker["options"]["step_s"]
    hours = marker["options"]["steps"] * step_s / 3600
    sections = [
        Section(
            title="Volatile demand: re-planned or planned once",
            text=[
                f"{frame['problem'].iloc[0]}: the rate of each type walks at random for {hours:g} h. Costs are "
                "those of the plans, without what moving costs, as in the paper; that price is the last column."
            ],
            tables=[
                Table(
                    title=f"Cost of {hours:g} h [USD]: re-planned every {step_s / 60:g} min, and planned once",
                    columns=(
                        "policy",
                        "sigma",
                        "re-planned",
                        "once",
                        "change",
                        "unmet [%]",
                        "once: unmet [%]",
                        "moving [USD]",
                    ),
                    rows=rows,
                    labels=2,
                    note="Once: the fleet of the first plan stays and is routed anew by LP every interval.",
                )
            ],
            charts=[
                LineChart(
                    key="volatility-cost",
                    title="What drifting demand costs",
                    x_label="standard deviation of the logarithm of demand, per interval",
                    y_label=f"cost of {hours:g} h [USD]",
                    lines=lines,
                )
            ],
        )
    ]
    found = claims(frame, timing, marker)
    if found:
        sections.append(Section(title="Beside the paper", tables=[claims_table(found)]))
    return sections


def _change(often: pd.DataFrame, once: pd.DataFrame) -> float | None:
    a, b = mean_of(often, "cost_usd"), mean_of(once, "cost_usd")
    return None if a is None or b is None else a / b - 1


def claims(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> Sequence[Claim]:
    """Gains of re-planning, as far as agh, gh and an exact policy were run."""
    del timing, marker

    def often(policy: str, sigma: float) -> pd.DataFrame:
        here = rows_where(frame, policy=policy, sigma=sigma)
        return here[here["interval_s"].notna()]

    def once(policy: str, sigma: float) -> pd.DataFrame:
        here = rows_where(frame, policy=policy, sigma=sigma)
        return here[here["interval_s"].isna()]

    found = []
    for paper, ours, published in (
        ("AGH-5min against AGH-24h", "agh", {0.04: -0.173, 0.05: -0.160}),
        ("AGH-5min against the exact plan (DM)-24h", "exact", {0.04: -0.452, 0.05: -0.479}),
    ):
        changes = {sigma: _change(often("agh", sigma), once(ours, sigma)) for sigma in published}
        known = {sigma: change for sigma, change in changes.items() if change is not None}
        if known:
            gains = all(change < -0.05 for change in known.values())
            found.append(
                Claim(
                    paper=paper,
                    published=", ".join(f"{published[s]:+.1%} (sigma {s:g})" for s in known),
                    ours=", ".join(f"{change:+.1%} (sigma {s:g})" for s, change in known.items()),
                    holds=verdict(gains),
                    why="" if gains else "less than 5 % here",
                )
            )
    changes = {sigma: _change(often("gh", sigma), once("gh", sigma)) for sigma in values_of(frame, "sigma")}
    known = {sigma: change for sigma, change in changes.items() if change is not None}
    if known:
        found.append(
            Claim(
                paper="GH gains nothing from re-planning",
                published="about 0 %",
                ours=", ".join(f"{change:+.1%} (sigma {s:g})" for s, change in known.items()),
                holds=verdict(all(change > -0.02 for change in known.values())),
            )
        )
    return found
