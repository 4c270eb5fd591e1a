"""How well and how fast the policies plan: `python benchmarks/planning.py --data DIR --out docs/results/planning`.

Every problem file under DIR (`TOKENFLEET_DATA/problems` by default) is planned by every policy, `--repeats` times, each
in a process of its own and in turn, so that a busy minute of the machine does not hit one policy only. Each plan goes
through the checker, each certificate through its verifier; neither is part of the seconds, nor is loading the policy.
A policy may have a time limit of its own: `agh+@3` gets 3 s. Written are OUT.parquet, a row per run, OUT.md, a row per
problem and policy with the median and the range of the seconds, and OUT-sizes.md, a row per policy and size.

`best known` is benchmarks/best_known.toml: a lower cost that the checker accepts is a discovery and is said so.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from policies.checking.plan import check  # noqa: E402
from policies.checking.proof import Prover  # noqa: E402
from policies.checking.verify import verify  # noqa: E402
from policies.registry import make_policy  # noqa: E402
from simulator.errors import TokenfleetError  # noqa: E402
from simulator.planning.files import read_problem  # noqa: E402
from simulator.planning.policy import StoppingRule  # noqa: E402

DISCOVERY = 1e-6  # relative: by how much a cost must be lower than the best known one
OPTIMAL = 1e-6  # relative gap at which a plan counts as proven
HEADINGS = (
    *("problem", "policy", "runs", "cost [USD]", "bound [USD]", "gap", "to best known", "seconds", "left", "nodes"),
    "certificate",
)


def run_once(path: Path, name: str, limit_s: float, seed: int) -> dict[str, Any]:
    """Plan one problem with one policy; everything that is told about it."""
    made, _, own_limit_s = name.partition("@")
    problem, policy = read_problem(path), make_policy(made)
    limit_s = float(own_limit_s or limit_s)
    stop = StoppingRule(time_limit_s=limit_s)
    row: dict[str, Any] = {"problem": path.name.removesuffix(".json.gz"), "policy": name, "time_limit_s": limit_s}
    certificate, effort = None, None
    started = time.perf_counter()
    try:
        if isinstance(policy, Prover):
            proof = policy.prove(problem, incumbent=None, stop=stop, seed=seed)
            plan, certificate, effort = proof.plan, proof.certificate, proof.effort
        else:
            plan = policy.plan(problem, incumbent=None, stop=stop, seed=seed)
    except TokenfleetError as error:
        return {**row, "seconds": time.perf_counter() - started, "error": str(error)}
    seconds = time.perf_counter() - started
    report = check(problem, plan)
    row |= {
        "cost_usd": report.cost_usd,
        "bound_usd": plan.bound_usd,
        "status": str(plan.status),
        "seconds": seconds,
        "accepted": report.accepted,
    }
    if effort is not None:
        row |= {
            "root_bound_usd": effort.root_bound_usd,
            "configurations": effort.configurations,
            "configurations_left": effort.configurations_left,
            "nodes": effort.nodes,
        }
    if certificate is not None:
        started = time.perf_counter()
        verdict = verify(problem, certificate)
        row |= {
            "certificate_accepted": verdict.accepted,
            "certified_bound_usd": verdict.bound_usd,
            "verification_s": time.perf_counter() - started,
        }
    return row


def in_its_own_process(path: Path, name: str, limit_s: float, seed: int) -> dict[str, Any]:
    """`run_once` in a fresh interpreter: its memory and its threads are its own."""
    command = [sys.executable, __file__, "--one", str(path), name, str(limit_s), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"problem": path.name, "policy": name, "error": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def order(path: Path) -> tuple[int, ...]:
    """Small problems first."""
    sizes, _, seed = path.name.removesuffix(".json.gz").partition("-seed")
    return (*(int(size) for size in sizes.split("x")), int(seed or 0))


def summary(runs: pd.DataFrame, best_known: dict[str, Any]) -> pd.DataFrame:
    """One row per problem and policy: the worst cost and bound of its runs, median and range of the seconds."""
    rows = []
    for (problem, policy), group in runs.groupby(["problem", "policy"], sort=False):
        failed = group["error"].notna() if "error" in group else pd.Series(False, index=group.index)
        good = group[~failed]
        row: dict[str, Any] = {"problem": problem, "policy": policy, "runs": len(group)}
        if len(good):
            cost, bound = good["cost_usd"].max(), good["bound_usd"].min()
            known = best_known.get(str(problem), {}).get("cost_usd")
            row |= {
                "cost_usd": cost,
                "bound_usd": bound,
                "gap": (cost - bound) / cost if pd.notna(bound) else None,
                "above_best_known": None if known is None else cost / known - 1,
                "seconds": good["seconds"].median(),
                "fastest_s": good["seconds"].min(),
                "slowest_s": good["seconds"].max(),
                "accepted": bool(good["accepted"].all()),
            }
            if "certificate_accepted" in good and good["certificate_accepted"].notna().all():
                row["certified"] = bool(good["certificate_accepted"].all())
            for name in ("configurations", "configurations_left", "nodes", "root_bound_usd", "verification_s"):
                if name in good and good[name].notna().all():
                    row[name] = good[name].max()
        row["failed"] = int(failed.sum())
        rows.append(row)
    return pd.DataFrame(rows)


def by_size(table: pd.DataFrame) -> str:
    """A row per policy, a pair of columns per size: median and worst distance to the best known cost, and seconds."""
    table = table.assign(size=table["problem"].str.partition("-seed")[0])
    sizes = sorted(table["size"].unique(), key=lambda size: order(Path(size)))
    problems = {size: table.loc[table["size"] == size, "problem"].nunique() for size in sizes}
    lines = [
        "Median / worst over the problems of a size: above the best known cost, and seconds.",
        "",
        f"| policy | {' | '.join(f'{size} ({problems[size]})' for size in sizes)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    for policy, rows in table.groupby("policy", sort=False):
        cells = []
        for size in sizes:
            here = rows[rows["size"] == size]
            good = here.dropna(subset=["cost_usd"]) if "cost_usd" in here else here.iloc[:0]
            if not len(good):
                cells.append("no plan" if len(here) else "")
                continue
            above, seconds = 100 * good["above_best_known"], good["seconds"]
            text = f"{_percent(above.median())} / {_percent(above.max())} %; "
            text += f"{_seconds(seconds.median())} / {_seconds(good['slowest_s'].max())} s"
            if len(good) < len(here):
                text += f"; {len(here) - len(good)} without a plan"
            cells.append(text)
        lines.append(
            f"| {str(policy).replace('@', ', ') + ' s' if '@' in str(policy) else policy} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _percent(value: float) -> str:
    return "0" if abs(value) < 100 * DISCOVERY else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.1f}"


def markdown(table: pd.DataFrame, arguments: argparse.Namespace) -> str:
    """The table as people read it."""
    lines = [
        f"Measured {date.today()} on {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"time limit {arguments.time_limit:g} s: cost is the highest and bound the lowest of the runs, seconds are the "
        "median (range). Left: configurations after fixing at the root.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|---|---|{'---:|' * (len(HEADINGS) - 3)}---|",
    ]
    for row in table.to_dict("records"):
        if pd.isna(row.get("cost_usd")):
            lines.append(f"| {row['problem']} | {row['policy']} | {row['runs']} | no plan | | | | | | | |")
            continue
        gap = "" if pd.isna(row["gap"]) else ("optimal" if row["gap"] <= 1.5 * OPTIMAL else f"{row['gap']:.2%}")
        bound = "" if pd.isna(row["bound_usd"]) else f"{row['bound_usd']:.4f}"
        above = row["above_best_known"]
        above_text = "" if pd.isna(above) else ("0" if abs(above) < DISCOVERY else f"{above:+.2%}")
        left = (
            ""
            if pd.isna(row.get("configurations_left"))
            else f"{row['configurations_left']:.0f} of {row['configurations']:.0f}"
        )
        nodes = "" if pd.isna(row.get("nodes")) else f"{row['nodes']:.0f}"
        certified = row.get("certified")
        proof = (
            ""
            if certified is None or pd.isna(certified)
            else f"{'accepted' if certified else 'REFUSED'} in {row['verification_s']:.1f} s"
        )
        refused = "" if row["accepted"] else " REFUSED"
        spread = f"{row['seconds']:.2f}"
        if row["runs"] > 1:
            spread += f" ({row['fastest_s']:.2f}-{row['slowest_s']:.2f})"
        cost = f"{row['cost_usd']:.6f}{refused}"
        cells = [
            row["problem"],
            row["policy"],
            str(row["runs"]),
            cost,
            bound,
            gap,
            above_text,
            spread,
            left,
            nodes,
            proof,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TOKENFLEET_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) / "problems" if data else None)
    parser.add_argument("--only", default="", help="problems whose names contain this")
    parser.add_argument("--policies", default="gh,agh,agh+@1,agh+@3,lpr,dvr,hf,milp,exact")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for each plan")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/planning"), help="without extension")
    parser.add_argument(
        "--also", type=Path, action="append", default=[], help="runs (.parquet) to put into the table too"
    )
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        path, name, limit_s, seed = arguments.one
        print(json.dumps(run_once(Path(path), name, float(limit_s), int(seed))))
        return
    if arguments.data is None or not arguments.data.is_dir():
        parser.error("--data: the folder of the problem files; or set TOKENFLEET_DATA")
    paths = sorted((p for p in arguments.data.glob("*.json.gz") if arguments.only in p.name), key=order)
    if not paths:
        parser.error(f"--data: no problem files in {arguments.data}")
    best_known = tomllib.loads((ROOT / "benchmarks" / "best_known.toml").read_text(encoding="utf-8"))
    rows = []
    for repeat in range(arguments.repeats):
        for path in paths:
            for name in filter(None, arguments.policies.split(",")):
                row = {**in_its_own_process(path, name, arguments.time_limit, 0), "repeat": repeat}
                rows.append(row)
                known = best_known.get(row["problem"], {}).get("cost_usd")
                note = row.get("error", "")
                if known is not None and row.get("accepted") and row["cost_usd"] < known * (1 - DISCOVERY):
                    note = f"a discovery: best known was {known}"
                cost, bound = row.get("cost_usd", float("nan")), row.get("bound_usd")
                print(
                    f"{row['problem']:16s} {name:8s} {cost:12.6f} {bound or float('nan'):12.6f} "
                    f"{row.get('seconds', 0):8.2f} s {note}",
                    flush=True,
                )
    runs = pd.concat([*(pd.read_parquet(path) for path in arguments.also), pd.DataFrame(rows)], ignore_index=True)
    runs = runs.sort_values("problem", key=lambda names: names.map(lambda name: order(Path(name))), kind="stable")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    runs.to_parquet(arguments.out.with_suffix(".parquet"), index=False)
    table = summary(runs, best_known)
    arguments.out.with_suffix(".md").write_text(markdown(table, arguments), encoding="utf-8")
    sizes = arguments.out.with_name(f"{arguments.out.name}-sizes.md")
    sizes.write_text(by_size(table), encoding="utf-8")
    print(f"written: {arguments.out}.parquet, {arguments.out}.md, {sizes}")


if __name__ == "__main__":
    main()
