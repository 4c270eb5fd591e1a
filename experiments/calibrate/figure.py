"""Residuals of a calibration as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.calibrate.calibrate import TierFit
from experiments.calibrate.fit import errors
from experiments.show.colours import GROUPS


def draw_residuals(fits: Sequence[TierFit], path: Path) -> None:
    """A row per tier: relative error against the measured time of prefill and of decode steps, coloured by
    TP degree."""
    figure, axes = plt.subplots(
        len(fits), 2, figsize=(10, 1.2 + 2.2 * len(fits)), squeeze=False, sharey="row", layout="constrained"
    )
    degrees = sorted({int(n) for one in fits for n in one.steps.tensor_parallel})
    for row, one in zip(axes, fits, strict=True):
        relative = 100 * errors(one.fitted.constants, one.steps)
        for axis, phase, which in (
            (row[0], "prefill", one.steps.prefill),
            (row[1], "decode", ~one.steps.prefill),
        ):
            for k, degree in enumerate(degrees):
                own = which & (one.steps.tensor_parallel == degree)
                if own.any():
                    axis.plot(
                        1e3 * one.steps.step_s[own],
                        relative[own],
                        ".",
                        markersize=3,
                        alpha=0.6,
                        color=GROUPS[k % len(GROUPS)],
                        label=f"TP {degree}",
                    )
            axis.axhline(0, color="0.4", linewidth=0.8)
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
            axis.set_title(f"{one.tier.name}, {phase}", fontsize=9, loc="left")
            axis.grid(alpha=0.25)
            limit = max(20.0, float(np.quantile(np.abs(relative), 0.99)) * 1.2)
            axis.set_ylim(-limit, limit)
        row[0].set_ylabel("error of the prediction [%]", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("measured step [ms]", fontsize=8)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper right", ncols=len(handles), fontsize=8, markerscale=3
    )
    figure.suptitle("Steps: predicted against measured", x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=130, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})
    plt.close(figure)
