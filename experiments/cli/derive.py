"""Measured steps from the result of a vLLM benchmark run: `tokenfleet derive`.

`vllm bench serve --max-concurrency C --save-result --save-detailed` keeps C requests in flight and writes the gap
before every token. Two things can be told from it:

- A decode step of C sequences: the median gap. Gaps that a prompt shares are longer; each request's prompt falls into
one gap of each of
  the others, so that (C - 1) of mean-output-length gaps are of that kind. Where they are more than `SHARED_GAPS` the
  median is no decode step, and the run gives none. Its context is that of a request half-way.
- The prefill of one prompt: TTFT, at C = 1 only. With more clients it holds the wait for others.

Both hold what the client and the network add, which is little beside a step on one machine.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from experiments.calibrate.names import Names
from experiments.options import CatalogOption, JsonOption
from experiments.show.atomic_write import write_whole
from experiments.show.progress import Terminal
from simulator.catalog import load_catalog
from simulator.errors import InputError

SHARED_GAPS = 0.4
LEAST_REQUESTS = 3  # for each client: before and after, the batch is not full
COLUMNS = (
    *("phase", "gpu", "precision", "model", "tensor_parallel", "batch", "query_tokens", "context_tokens"),
    "step_ms",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What a result does not state of the server that it is of."""

    gpu: str
    precision: str
    tensor_parallel: int
    model: str | None = None  # None: as the result states it


def rows_of_benchmark(path: Path, instance: Instance) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the measurement schema from one result, and what it does not tell and why.

    Raises
    ------
    InputError
        If the file is no detailed result of `vllm bench serve`.
    """
    result = _read(path)
    clients = result["max_concurrency"]
    finished = [
        (int(prompt), int(answer), float(ttft), [float(gap) for gap in gaps])
        for prompt, answer, ttft, gaps in zip(
            result["input_lens"], result["output_lens"], result["ttfts"], result["itls"], strict=True
        )
        if answer > 0 and ttft > 0
    ]
    notes = []
    failed = len(result["input_lens"]) - len(finished)
    if failed:
        notes.append(f"{path}: {failed} failed requests left out")
    if not finished:
        raise InputError(f"{path}: no request was answered")
    common = {
        "gpu": instance.gpu,
        "precision": instance.precision,
        "model": instance.model or result["model_id"],
        "tensor_parallel": instance.tensor_parallel,
    }
    rows: list[dict[str, Any]] = []
    if clients == 1:
        rows += [
            {"phase": "prefill", **common, "batch": 1, "query_tokens": p, "context_tokens": p, "step_ms": 1e3 * ttft}
            for p, _, ttft, _ in finished
        ]
    else:
        notes.append(f"{path}: no prefill rows: at {clients} clients TTFT holds the wait for others")
    gaps = np.array([gap for *_, own in finished for gap in own if gap > 0])
    mean_input = float(np.mean([prompt for prompt, *_ in finished]))
    mean_output = float(np.mean([answer for _, answer, *_ in finished]))
    if len(finished) < LEAST_REQUESTS * clients:
        notes.append(f"{path}: no decode row: {len(finished)} requests, expected {LEAST_REQUESTS} for each client")
    elif clients - 1 > SHARED_GAPS * mean_output:
        notes.append(
            f"{path}: no decode row: answers of {mean_output:.0f} tokens are too short for {clients} clients, "
            f"most gaps hold a prompt; expected {(clients - 1) / SHARED_GAPS:.0f} or more"
        )
    elif not len(gaps):
        notes.append(f"{path}: no decode row: answers of one token")
    else:
        rows.append(
            {
                "phase": "decode",
                **common,
                "batch": clients,
                "query_tokens": 1,
                "context_tokens": max(1, round(mean_input + mean_output / 2)),
                "step_ms": 1e3 * float(np.median(gaps)),
            }
        )
    return rows, notes


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a file of the measurement schema (docs/calibration.md)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "step_ms": f"{row['step_ms']:.6g}"} for row in rows)
    return text.getvalue()


def command(
    context: typer.Context,
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Detailed results of vllm bench serve.")
    ],
    gpu: Annotated[str, typer.Option(help="GPU, by a name of the catalog.")],
    out: Annotated[Path, typer.Option("--out", help="Write the rows to this CSV file.")],
    precision: Annotated[str, typer.Option(help="Precision of the weights.")] = "fp16",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="TP degree of the server.")] = 1,
    model: Annotated[str | None, typer.Option(help="Model, where the result's name is not in the catalog.")] = None,
    catalog_file: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive rows for `tokenfleet calibrate` from vLLM benchmark runs.

    Example: `tokenfleet derive c1.json c32.json --gpu l40s --tensor-parallel 2 --out steps.csv`
    """
    terminal: Terminal = context.obj
    instance = Instance(gpu=gpu, precision=precision, tensor_parallel=tensor_parallel, model=model)
    names = Names(load_catalog(catalog_file))
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    problems: list[str] = []
    for path in results:
        try:
            found, told = rows_of_benchmark(path, instance)
        except InputError as error:
            problems += error.problems
            continue
        rows += found
        notes += told
        problem = next((names.problem(gpu, precision, row["model"]) for row in found), None)
        problems += [] if problem is None else [f"{path}: {problem}"]
    if problems:
        raise InputError(problems)
    for text in notes:
        terminal.note(text)
    if not rows:
        raise InputError("no result tells a step; the lines above say why")
    write_whole(out, csv_of(rows))
    if as_json:
        terminal.print_json({"rows": rows, "notes": notes})
        return
    phases = [str(row["phase"]) for row in rows]
    terminal.say(f"{out}: {phases.count('prefill')} prefill and {phases.count('decode')} decode rows")


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: expected JSON in UTF-8: {error}") from None
    if isinstance(result, dict) and "avg_latency" in result:
        raise InputError(f"{path}: a result of `vllm bench latency` states no lengths; use `vllm bench serve`")
    lists = ("input_lens", "output_lens", "ttfts", "itls")
    missing = [
        name
        for name in (*lists, "max_concurrency", "model_id")
        if not isinstance(result, dict) or result.get(name) is None
    ]
    if missing:
        raise InputError(
            f"{path}: {', '.join(missing)} missing; expected a result of "
            "`vllm bench serve --max-concurrency C --save-result --save-detailed`"
        )
    problems = []
    if not isinstance(result["max_concurrency"], int) or result["max_concurrency"] < 1:
        problems.append(f"{path}: max_concurrency: found {result['max_concurrency']!r}, expected 1 or more")
    sizes = {name: len(result[name]) if isinstance(result[name], list) else -1 for name in lists}
    if len(set(sizes.values())) != 1 or -1 in sizes.values():
        problems.append(f"{path}: expected {', '.join(lists)} as lists of one length")
    else:
        for name in ("input_lens", "output_lens", "ttfts"):
            problems += [
                f"{path}: {name}[{k}]: found {value!r}, expected a number of at least 0"
                for k, value in enumerate(result[name])
                if not _is_number(value)
            ][:1]
        problems += [
            f"{path}: itls[{k}]: expected a list of times"
            for k, own in enumerate(result["itls"])
            if not isinstance(own, list) or not all(map(_is_number, own))
        ][:1]
    if problems:
        raise InputError(problems)
    return dict(result)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
