"""Draw the picture of the README from the sweep that its first line names.

tokenfleet study frontier --parts static --policy exact --policy gh --policy agh --factors 1 --out runs/frontier
python docs/images/cost_against_slo.py runs/frontier docs/images/cost_against_slo.svg
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

COLOURS = {"exact": "#0072b2", "gh": "#d55e00", "agh": "#009e73"}
NAMES = {"exact": "exact (proven cheapest)", "gh": "gh (greedy)", "agh": "agh (local search)"}


def draw(sweep: Path, out: Path) -> None:
    """Mean cost of an hour against the mean share of requests that missed an SLO, by policy and target utilisation."""
    rows = pd.read_parquet(sweep / "results.parquet")
    means = rows[rows.way == "simulated"].groupby(["policy", "setting"])[["cost_usd", "violation_share"]].mean()
    mpl.rcParams.update({"svg.hashsalt": "tokenfleet", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for policy, colour in COLOURS.items():
        line = means.loc[policy]
        axes.plot(line.cost_usd, 100 * line.violation_share, "o-", color=colour, label=NAMES[policy], alpha=0.9)
    x, y = means.loc["verified[agh+]"].iloc[0] * [1, 100]
    axes.plot(x, y, "*", color="#aa3377", markersize=18, label="verified by simulation")
    axes.annotate(
        f"{x:.2f} USD, {y:.1f} % missed:\nplanned, simulated, planned again",
        (x, y), (x + 0.25, 0.55 * y), color="#aa3377", va="center",
    )  # fmt: skip
    x, y = means.loc[("exact", "cap 1")] * [1, 100]
    axes.annotate(f"GPUs planned full: {y:.0f} % missed", (x, y), (x + 0.1, 1.5 * y), va="center")
    x, y = means.loc[("exact", "cap 0.3")] * [1, 100]
    axes.annotate("GPUs planned 30 % full", (x, y), (x - 0.05, 0.68 * y), ha="right", va="center")
    axes.set(
        yscale="log", ylim=(0.18, 110),
        yticks=(ticks := [0.3, 1, 3, 10, 30, 100]), yticklabels=[f"{tick:g}" for tick in ticks],
        xlabel="cost of the simulated hour [USD]", ylabel="requests that missed an SLO [%]",
        title="One bursty hour of LLM traffic: what slack costs, and what it buys",
    )  # fmt: skip
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", title="policy; a point for each target utilisation", alignment="left")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
