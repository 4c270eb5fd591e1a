"""What `tokenfleet check-policy` shows of the findings of the conformance suite."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from policies.conformance.suite import Finding, Status

STYLES = {Status.PASSED: "green", Status.FAILED: "red", Status.SKIPPED: "yellow"}


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
