"""How wrong are the step times? One table, from the public measurements, beside what was wanted.

    python benchmarks/step_times.py --data DIR --out docs/results/step-times.md

DIR is the folder with latency/ (see `TOKENFLEET_DATA` in the README). Takes two minutes on two cores.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments.calibrate.calibrate import steps_by_tier
from experiments.calibrate.fit import constant_errors, left_out
from experiments.calibrate.measured_requests import measured_latencies, read_requests, replay_requests
from experiments.calibrate.measurements import read_measurements
from experiments.calibrate.serving_runs import read_runs
from experiments.cli.fidelity import held_out, replay_all
from experiments.show.atomic_write import write_whole
from simulator.catalog import Catalog, load_catalog

FloatArray = npt.NDArray[np.float64]
Row = tuple[str, str, str, str]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def mean_and_p90(errors: FloatArray) -> str:
    size = np.abs(errors)
    return f"{percent(size.mean())} (P90 {percent(float(np.quantile(size, 0.9)))}) %"


def three(errors: Sequence[float]) -> str:
    return " / ".join(percent(value) for value in np.quantile(np.abs(np.array(errors)), [0.5, 0.75, 0.9])) + " %"


def steps(path: Path, catalog: Catalog, wanted: dict[tuple[str, str, str], str]) -> Iterator[Row]:
    """A row per tier, phase and kind of what was left out, over all of its folds."""
    for name, (tier, own) in steps_by_tier(read_measurements(path), catalog).items():
        folds: dict[str, list[tuple[npt.NDArray[np.bool_], FloatArray]]] = {}
        for what, _, tested, relative in left_out(own, tier.interconnect):
            folds.setdefault(what, []).append((tested.prefill, relative))
        paper = constant_errors(own)
        for what, found in folds.items():
            for phase, chosen in (("decode", False), ("prefill", True)):
                relative = np.concatenate([errors[prefill == chosen] for prefill, errors in found])
                unseen = {"tensor_parallel": "TP", "model": "model"}[what]
                yield (
                    f"{path.name.split('.')[0]}, {name}, {phase}, unseen {unseen}",
                    wanted.get((name, phase, unseen), ""),
                    mean_and_p90(relative),
                    f"{percent(np.abs(paper[own.prefill == chosen]).mean())} %",
                )


def serving(path: Path, catalog: Catalog) -> Iterator[Row]:
    """A row per engine and kind of what was left out, and one over all engines."""
    runs, _ = read_runs(path, catalog)
    fitted, _ = replay_all(runs, catalog)
    folds = held_out(runs, catalog, ("tp", "concurrency", "model"))
    kinds = {
        "unseen TP": ("tp ", "3 / 6 / 10", "6 / 12 / 25"),
        "unseen load": ("concurrency ", "3 / 6 / 10", "6 / 12 / 25"),
        "unseen model": ("model ", "4 / 8 / 12", "12 / 25 / 40"),
        "GPU by datasheet ratios": ("calibration ", "5 / 10 / 15", "8 / 15 / 30"),
    }
    for engine in [*dict.fromkeys(run.backend for run in runs), "all three"]:
        own: list[dict[str, Any]] = [
            {"tpot": one.tpot_error, "ttft": one.ttft_error}
            for one in fitted
            if engine in (one.run.backend, "all three")
        ]
        yield from _serving_rows(engine, "as fitted", own, "", "")
        for kind, (prefix, tpot, ttft) in kinds.items():
            own = [
                one
                for fold in folds
                if fold["left_out"].startswith(prefix) and engine in (fold["backend"], "all three")
                for one in fold["runs"]
            ]
            if own:
                yield from _serving_rows(engine, kind, own, f"{tpot} %", f"{ttft} %")


def _serving_rows(engine: str, kind: str, own: list[dict[str, Any]], tpot: str, ttft: str) -> Iterator[Row]:
    for name, wanted in (("tpot", tpot), ("ttft", ttft)):
        yield (f"{engine}, {kind}: {name.upper()}", wanted, three([one[name] for one in own]), str(len(own)))


def requests(path: Path, catalog: Catalog) -> Iterator[Row]:
    """The open-loop run, which nothing was fitted to."""
    measured = read_requests(path, catalog)
    real, ours = measured_latencies(measured), replay_requests(measured, catalog.engines["vllm"])
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        was, now = getattr(real, name), getattr(ours, name)
        known = ~np.isnan(was)
        errors = (now[known] / was[known] - 1).tolist()
        yield (f"vLLM on RTX 4090, open loop: {name[:-2].upper()}", "", three(errors), str(len(errors)))


def table(heading: Sequence[str], rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with latency/")
    parser.add_argument("--out", type=Path, help="Markdown file (default: standard output)")
    options = parser.parse_args()
    latency, catalog = options.data / "latency", load_catalog()
    wanted = {
        ("a100-80-fp16", "decode", "TP"): "<= 4 %",
        ("h100-80-fp16", "decode", "TP"): "<= 5 %",
        ("a100-80-fp16", "prefill", "TP"): "<= 10 %",
        ("h100-80-fp16", "prefill", "TP"): "<= 8 %",
    }
    composed = {
        (tier, phase, unseen): "<= 3 (P90 7) %" if phase == "decode" else "<= 5 (P90 10) %"
        for tier in ("a100-80-fp16", "h100-80-fp16", "h100-80-fp8")
        for phase in ("decode", "prefill")
        for unseen in ("TP", "model")
    }
    step_rows = [
        *steps(latency / "splitwise_step_times.csv", catalog, wanted),
        *steps(latency / "composed_step_times.csv.gz", catalog, composed),
    ]
    run_rows = [
        *serving(latency / "silicon_dense_serving.csv", catalog),
        *requests(latency / "llmservingsim_vllm_requests_rtx4090.csv", catalog),
    ]
    text = "\n\n".join(
        [
            "# Figures: step times and serving runs",
            "Written by `python benchmarks/step_times.py --data DIR --out docs/results/step-times.md`. Do not edit.\n"
            "What they mean is in [calibration.md](../calibration.md) and [fidelity.md](../fidelity.md).",
            "## Steps, each left out of its fit",
            "Mean of the absolute relative errors, over all folds. *Paper's form*: constants per token over TP,\n"
            "the best for these rows.",
            table(("", "wanted", "here", "paper's form, fitted to these rows"), step_rows),
            "## Serving runs",
            "P50 / P75 / P90 of the absolute relative errors of the runs (of the requests, in the open loop).",
            table(("", "wanted", "here", "runs"), run_rows),
        ]
    )
    if options.out is None:
        print(text)
    else:
        write_whole(options.out, text + "\n")


if __name__ == "__main__":
    main()
