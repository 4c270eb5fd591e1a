"""Planning time and gap as problems grow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.show.parts import LineChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, study
from experiments.studies.shared.view import Claim, cell, claims_table, curve, mean_of, policies_of, rows_where, verdict
from experiments.sweep.specification import Run
from simulator.errors import InputError
from simulator.planning.files import read_problem

POLICIES = ("gh", "agh", "agh+", "exact")
SIZES = "6x6x10,10x10x10,15x15x15,20x20x20,50x20x20"
SLOW = ("milp", "exact", "agh+")  # what a time limit can stop


@study(policies=POLICIES, seeds=3, jobs=1)
def command(
    asked: Asked,
    problems: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PROBLEM]...", help="tokenfleet-problem/1 files; none: random problems of --sizes."),
    ] = None,
    sizes: Annotated[str, typer.Option(help="Types x models x tiers, comma-separated.")] = SIZES,
    time_limit: Annotated[
        float, typer.Option(min=0.001, help="Seconds for each plan of a policy that searches.")
    ] = 30.0,
) -> Design:
    """Planning time and gap as problems grow; one process by default, since times are what is measured.

    Example: `tokenfleet study scale --sizes 6x6x10,10x10x10 --policy agh --policy exact --seeds 2`
    """
    names = asked.policies
    if problems:
        drawn: list[tuple[dict[str, Any], int, str, str]] = []
        for path in problems:
            size = read_problem(path)
            label = f"{len(size.query_types)}x{len(size.models)}x{len(size.tiers)}"
            drawn.append(({"problem": str(path)}, 0, label, path.name.partition(".")[0]))
    else:
        drawn = [
            ({"random": shape}, seed, size, f"{size}, seed {seed}")
            for size, shape in _sizes(sizes)
            for seed in range(asked.seeds)
        ]
    runs = [
        Run(
            task="plan",
            parameters={
                "ground": ground,
                "seed": seed,
                "policy": name,
                "about": {"setting": size},
                **({"time_limit_s": time_limit} if name in SLOW else {}),
            },
            label=f"{name} on {label}",
        )
        for ground, seed, size, label in drawn
        for name in names
    ]
    return Design(
        runs=runs,
        options={"policies": names, "sizes": [size for _, _, size, _ in drawn], "time_limit_s": time_limit},
        files=[*(str(path) for path in problems or ())],
    )


def _sizes(text: str) -> list[tuple[str, list[int]]]:
    """Raises InputError naming the first that is none."""
    found = []
    for item in text.split(","):
        parts = item.strip().split("x")
        if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise InputError(f"--sizes: {item.strip()!r} is no size; expected types x models x tiers, as in 6x6x10")
        found.append((item.strip(), [int(part) for part in parts]))
    return found


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """Seconds and gaps by size and policy."""
    joined = _joined(frame, timing)
    sizes = list(dict.fromkeys(joined["setting"]))
    rows = []
    for size in sizes:
        for policy in policies_of(joined):
            own = rows_where(joined, setting=size, policy=policy)
            if own.empty:
                continue
            rows.append(
                [
                    size,
                    policy,
                    str(len(own)),
                    cell(own, "planning_s", 3),
                    cell(own, "above_best", 2, 100),
                    cell(own, "gap", 2, 100) if own["bound_usd"].notna().any() else "-",
                    f"{int((own['status'] == 'optimal').sum())} of {len(own)}",
                ]
            )
    limit_s = marker["options"]["time_limit_s"]
    charts = [
        LineChart(
            key=f"scale-{measure}",
            title=title,
            x_label="query types x models x tiers",
            y_label=label,
            lines=[
                curve(rows_where(joined, policy=policy), policy, "place", column, factor=factor)
                for policy in policies_of(joined)
            ],
            log_y=log_y,
            x_ticks={float(place): size for place, size in enumerate(sizes)},
        )
        for measure, title, label, column, factor, log_y in (
            ("seconds", "Planning time by size", "planning time [s]", "planning_s", 1.0, True),
            ("gap", "Cost above the best known", "above the best known [%]", "above_best", 100.0, False),
        )
    ]
    sections = [
        Section(
            title="Scale: planning time and gap",
            tables=[
                Table(
                    title="Planning time and cost by size",
                    columns=(
                        "size",
                        "policy",
                        "problems",
                        "time [s]",
                        "above best [%]",
                        "proven gap [%]",
                        "proven optimal",
                    ),
                    rows=rows,
                    labels=2,
                    note=f"Best: the cheapest plan of any policy here. Policies that search stop after {limit_s:g} s; "
                    "times are of the machine it ran on.",
                )
            ],
            charts=charts,
        )
    ]
    found = claims(frame, timing, marker)
    if found:
        sections.append(Section(title="Beside the paper", tables=[claims_table(found)]))
    return sections


def _joined(frame: pd.DataFrame, timing: pd.DataFrame) -> pd.DataFrame:
    """Rows with their planning times, how far each is above the best of its problem, and the place of its size."""
    joined = frame.merge(timing[["run", "planning_s"]], on="run", how="left")
    best = joined.groupby("problem")["cost_usd"].transform("min")
    places = {size: float(place) for place, size in enumerate(dict.fromkeys(joined["setting"]))}
    return joined.assign(above_best=joined["cost_usd"] / best - 1, place=joined["setting"].map(places))


def claims(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> Sequence[Claim]:
    """Run times and gaps, as far as these policies and sizes were run."""
    joined = _joined(frame, timing)
    found = []
    for policy, published, most_s in (("gh", "<0.01-0.9 s", 0.9), ("agh", "0.01-2.3 s", 2.3)):
        own = rows_where(joined, policy=policy)
        if len(own):
            low, high = own["planning_s"].min(), own["planning_s"].max()
            found.append(
                Claim(
                    paper=f"Run time of {policy.upper()} up to the largest problems",
                    published=published,
                    ours=f"{low:.3f}-{high:.2f} s",
                    holds=verdict(high <= most_s),
                )
            )
    exact = rows_where(joined, policy="exact")
    twenty = rows_where(exact, setting="20x20x20")
    if len(exact) and len(twenty):
        six = rows_where(exact, setting="6x6x10")
        proven = bool((twenty["status"] == "optimal").all())
        found.append(
            Claim(
                paper="The exact solution takes 0.39 s at 6x6x10 and times out after 600 s at 20x20x20",
                published="0.39 s to a 600 s time-out",
                ours=f"{mean_of(six, 'planning_s') or 0:.2f} s; {twenty['planning_s'].mean():.1f} s at 20x20x20"
                + (
                    ", proven"
                    if proven
                    else f", proven for {int((twenty['status'] == 'optimal').sum())} of {len(twenty)}"
                ),
                holds="no, exact planning is faster here" if proven else "in part",
                why="branch and price over whole deployments" if proven else "",
            )
        )
    agh = rows_where(joined, policy="agh")
    if len(agh):
        mean, worst = 100 * agh["above_best"].mean(), 100 * agh["above_best"].max()
        holds = bool(worst <= 10)
        found.append(
            Claim(
                paper="AGH is within 5-10 % of the optimum",
                published="5-10 %",
                ours=f"{mean:.1f} % above the best on average, {worst:.1f} % at worst",
                holds=verdict(holds) if holds or mean > 10 else "in part",
            )
        )
    del marker
    return found
