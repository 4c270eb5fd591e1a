"""Step times of whole models, summed from measured kernels of one layer (tables of LLMServingSim).

A step of b decoding sequences at context c takes, for each of the model's layers, the dense kernels at b tokens
(projections, activation, rotary embedding, and two norms) and the attention kernel at (b, c); and once the embedding,
the last norm, the head and the sampler. The prefill of q tokens takes the same at q tokens, with one output. Between
measured sizes times are interpolated linearly; nothing is extrapolated. All-reduces are not in the tables, so that
only TP 1 is composed.

    python -m experiments.calibrate.compose DENSE.csv.gz ATTENTION.csv.gz --out steps.csv
"""

import csv
import io
import math
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer

from experiments.calibrate.names import Names
from experiments.show.atomic_write import write_whole
from simulator.catalog import Catalog, LlmModel, Tier, kv_capacity_tokens, load_catalog
from simulator.errors import InputError

PRECISION = "fp16"
ONCE = ("embedding", "final_layernorm")
TWICE_A_LAYER = ("layernorm",)
PER_SEQUENCE = ("lm_head", "sampler")
DENSE_COLUMNS = ("gpu", "model", "tp", "table", "layer", "tokens", "time_us", "sequences")
ATTENTION_COLUMNS = ("gpu", "model", "tp", "prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
COLUMNS = (
    *("phase", "gpu", "precision", "model", "tensor_parallel", "batch", "query_tokens", "context_tokens"),
    *("step_ms", "gemm_ms", "lm_head_ms", "attention_ms", "allreduce_ms"),
)

Row = dict[str, Any]
Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def compose(dense: Path, attention: Path, catalog: Catalog) -> tuple[list[Row], list[str]]:
    """Steps of every model and GPU of the tables that the catalog knows, and what was left out and why.

    Raises
    ------
    InputError
        If a file cannot be read or lacks a column.
    """
    kernels, attentions = _table(dense, DENSE_COLUMNS), _table(attention, ATTENTION_COLUMNS)
    names = Names(catalog)
    rows: list[Row] = []
    notes: list[str] = []
    for key, own in attentions.groupby(["gpu", "model", "tp"], sort=True):
        gpu, name, tp = str(key[0]), str(key[1]), int(str(key[2]))
        model, tier = names.model(name), names.tier(gpu, PRECISION)
        if tp != 1:
            notes.append(f"{gpu}, {name}, TP {tp}: left out, the tables hold no all-reduces")
        elif model is None or tier is None:
            notes.append(f"{gpu}, {name}: left out, not in the catalog")
        else:
            mine = kernels[(kernels.gpu == gpu) & (kernels.model == name) & (kernels.tp == tp)]
            rows += _steps(_Curves(mine), own, model, tier)
    return rows, notes


class _Curves:
    """Times of the kernels of one model on one GPU [ms], by tokens or sequences."""

    def __init__(self, kernels: pd.DataFrame) -> None:
        self._curves: dict[str, Curve] = {}
        for layer, own in kernels.groupby("layer"):
            size = own["sequences"] if layer in PER_SEQUENCE else own["tokens"]
            order = np.argsort(size.to_numpy(dtype=np.float64), kind="stable")
            times_ms = own["time_us"].to_numpy(dtype=np.float64)[order] / 1e3
            self._curves[str(layer)] = (size.to_numpy(dtype=np.float64)[order], times_ms)
        dense = [name for name in self._curves if name not in PER_SEQUENCE]
        self.most_tokens = min(self._curves[name][0][-1] for name in dense)
        self.most_sequences = min(self._curves[name][0][-1] for name in PER_SEQUENCE)

    def layers_ms(self, tokens: float, layers: int) -> float:
        """Time of all layers and of what a step does once, for numbers of tokens [ms]."""
        total = 0.0
        for name, (size, times_ms) in self._curves.items():
            if name not in PER_SEQUENCE:
                times = 1 if name in ONCE else layers * (2 if name in TWICE_A_LAYER else 1)
                total += times * float(np.interp(tokens, size, times_ms))
        return total

    def head_ms(self, sequences: float) -> float:
        return math.fsum(float(np.interp(sequences, *self._curves[name])) for name in PER_SEQUENCE)


def _steps(curves: _Curves, attention: pd.DataFrame, model: LlmModel, tier: Tier) -> list[Row]:
    """Pure decode steps and pure prefills; mixed batches of the table are not steps of one phase."""
    rows = []
    room = kv_capacity_tokens(model, tier, 1, 1)
    for point in attention.itertuples(index=False):
        chunk, before, batch, context, time_us = (
            float(getattr(point, name)) for name in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
        )
        if chunk == 0 and batch > 0 and context > 0:
            phase, sequences, query, held, tokens, outputs = "decode", batch, 1.0, context, batch, batch
        elif chunk > 0 and batch == 0:
            phase, sequences, query, held, tokens, outputs = "prefill", 1.0, chunk, before + chunk, chunk, 1.0
        else:
            continue
        if tokens > curves.most_tokens or outputs > curves.most_sequences or sequences * held > room:
            continue
        layers_ms, head_ms = curves.layers_ms(tokens, model.layers), curves.head_ms(outputs)
        attention_ms = model.layers * time_us / 1e3
        rows.append(
            {
                "phase": phase,
                "gpu": tier.gpu,
                "precision": tier.precision,
                "model": model.name,
                "tensor_parallel": 1,
                "batch": int(sequences),
                "query_tokens": int(query),
                "context_tokens": int(held),
                "step_ms": round(layers_ms + head_ms + attention_ms, 5),
                "gemm_ms": round(layers_ms, 5),
                "lm_head_ms": round(head_ms, 5),
                "attention_ms": round(attention_ms, 5),
                "allreduce_ms": 0.0,
            }
        )
    return rows


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{path}: columns {', '.join(missing)} are missing")
    if not len(table) or not (table["time_us"] > 0).all():
        raise InputError(f"{path}: time_us: expected rows with times above 0")
    return table


def csv_of(rows: list[Row]) -> str:
    """The rows in our measurement schema (docs/calibration.md)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main(
    dense: Annotated[Path, typer.Argument(help="Kernels of a layer by tokens, and of the head by sequences.")],
    attention: Annotated[Path, typer.Argument(help="Attention kernels of a layer.")],
    out: Annotated[Path, typer.Option("--out", help="Steps in our measurement schema.")],
) -> None:
    """Sum measured kernels to steps that `tokenfleet calibrate` reads."""
    try:
        rows, notes = compose(dense, attention, load_catalog())
        for note in notes:
            typer.echo(note, err=True)
        if not rows:
            raise InputError(f"{dense}: no model and GPU of the tables is in the catalog")
        write_whole(out, csv_of(rows))
    except InputError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    by_phase: dict[str, int] = defaultdict(int)
    for row in rows:
        by_phase[row["phase"]] += 1
    typer.echo(f"{out}: " + ", ".join(f"{count} {phase} steps" for phase, count in by_phase.items()), err=True)


if __name__ == "__main__":
    typer.run(main)
