"""`tokenfleet vet`: what a policy owes to its callers, checked."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from experiments.options import JsonOption, SeedOption
from experiments.show.progress import Terminal
from policies.conformance.suite import Finding, Status, run_checks

STYLES = {Status.PASSED: "green", Status.FAILED: "red", Status.SKIPPED: "yellow"}


def command(
    context: typer.Context,
    policy: Annotated[
        str, typer.Argument(help="Policy by name (`tokenfleet list policies`) or path/to/file.py:Class.")
    ],
    problems: Annotated[int, typer.Option(min=1, help="How many random problems it has to plan.")] = 25,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge a policy, shipped or your own, by what every policy owes to its callers; exit code 1 if a check fails.

    Its plans are feasible, its cost and bounds true; it repeats itself, changes nothing, keeps its time limit, and
    takes any incumbent.

    Example: `tokenfleet vet gh`
    """
    terminal: Terminal = context.obj
    with terminal.progress_bars() as bars:
        step = bars.start(policy)
        with redirect_stdout(sys.stderr):  # what a policy prints is no result
            findings = run_checks(policy, problems=problems, seed=seed, progress=step)
        step(1.0)
    if as_json:
        terminal.print_json(findings_dict(policy, findings, problems=problems, seed=seed))
    else:
        terminal.out.print(findings_table(findings))
        terminal.say(findings_line(policy, findings, seed))
    if any(finding.status is Status.FAILED for finding in findings):
        raise typer.Exit(1)


def findings_table(findings: Sequence[Finding]) -> Table:
    """One row per check."""
    table = Table()
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("what was found")
    for finding in findings:
        outcome = Text(finding.status, style=STYLES[finding.status])
        table.add_row(finding.name, outcome, Text(finding.detail, overflow="fold"))  # text: [...] is no markup
    return table


def findings_line(policy: str, findings: Sequence[Finding], seed: int) -> str:
    """How many checks passed, failed and were skipped."""
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{policy}: {told} of {len(findings)} checks, seed {seed}"


def findings_dict(policy: str, findings: Sequence[Finding], *, problems: int, seed: int) -> dict[str, Any]:
    """The findings for `--json`."""
    return {
        "policy": policy,
        "passed": all(finding.status is not Status.FAILED for finding in findings),
        "checks": [{"name": f.name, "status": str(f.status), "detail": f.detail} for f in findings],
        "problems": problems,
        "seed": seed,
    }
