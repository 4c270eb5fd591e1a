"""Step times of a transformer with random weights on the GPU at hand, as rows for `tokenfleet calibrate`.

    python benchmarks/gpu_step_times.py --model llama-3.1-8b --out steps.csv
    tokenfleet calibrate steps.csv --out mine.toml

Needs PyTorch and a CUDA GPU, neither of which tokenfleet needs otherwise; without them it says so and measures nothing.
Decode steps run as one CUDA graph, as engines run them; prefills run eagerly. TP 1. What an engine adds (scheduling,
sampling, HTTP) is not in these times: the rows are of kernels and launches, at 16 bit.
"""

import argparse
import csv
import importlib
import io
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments.show.atomic_write import write_whole
from simulator.catalog import LlmModel, load_catalog
from simulator.errors import InputError
from simulator.validation import closest

COLUMNS = (
    *("phase", "gpu", "precision", "model", "tensor_parallel", "batch", "query_tokens", "context_tokens"),
    "step_ms",
)
DEVICES = {
    "A100-SXM4-80GB": "a100-80",
    "A100-SXM4-40GB": "a100-40",
    "A100-PCIE-40GB": "a100-40",
    "H100 80GB HBM3": "h100-80",
    "H200": "h200-141",
    "GB200": "gb200-186",
    "B200": "b200-180",
    "L40S": "l40s",
    "L4": "l4",
    "RTX 4090": "rtx4090",
    "RTX A6000": "a6000",
}
"""What CUDA calls a device, without its brand, and its name in the catalog.

Whole names: an L40 is no L4, a GH200 no H200, and a MIG slice or a laptop's GPU not the whole one.
"""

MEMORY_SHARE = 0.9
BYTES = 2
ROUND_TO = 128  # widths of matrices


@dataclass(frozen=True, slots=True)
class Point:
    """One step to measure."""

    prefill: bool
    batch: int
    query_tokens: int
    context_tokens: int


def feed_forward_width(model: LlmModel) -> int:
    """Width of the gated MLP: what attention leaves of a layer's parameters, over three matrices."""
    attention = model.hidden_size * (2 * model.attention_heads + 2 * model.kv_heads) * model.head_dim
    left = model.layer_parameters_b * 1e9 / model.layers - attention
    return max(ROUND_TO, round(left / (3 * model.hidden_size) / ROUND_TO) * ROUND_TO)


def points(batches: Sequence[int], queries: Sequence[int], contexts: Sequence[int]) -> Iterator[Point]:
    """Decode steps of every batch at every context, and prefills of every length by one sequence."""
    for query in queries:
        yield Point(True, 1, query, query)
    for batch in batches:
        for context in contexts:
            yield Point(False, batch, 1, context)


def needed_bytes(model: LlmModel, point: Point) -> float:
    """Weights, cache, and the widest activations of a step."""
    cache = point.batch * point.context_tokens * model.kv_bytes_per_token
    widest = 4 * feed_forward_width(model) + 2 * model.hidden_size  # gate, value, silu and product; the residual
    return BYTES * model.parameters_b * 1e9 + cache + BYTES * point.batch * point.query_tokens * widest


def guess_gpu(device: str) -> str | None:
    """The catalog's name of a CUDA device."""
    return DEVICES.get(device.removeprefix("NVIDIA ").removeprefix("GeForce "))


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a file of the measurement schema (docs/calibration.md)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Transformer:
    """Layers of one model's shape with random weights and a cache; every step does the work of a real one."""

    def __init__(self, torch: Any, model: LlmModel, tokens: int, batch: int) -> None:
        self._torch, self._model = torch, model
        self._functional = torch.nn.functional
        width, heads = model.hidden_size, model.attention_heads * model.head_dim
        kv, inner = model.kv_heads * model.head_dim, feed_forward_width(model)

        def matrix(*shape: int) -> Any:
            return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02

        # Each layer has weights and cache of its own: a step reads more than the L2 cache holds, as in reality.
        self._layers = [
            (matrix(width, heads + 2 * kv), matrix(heads, width), matrix(width, 2 * inner), matrix(inner, width))
            for _ in range(model.layers)
        ]
        self._caches = [
            tuple(matrix(batch, model.kv_heads, tokens, model.head_dim) for _ in range(2)) for _ in range(model.layers)
        ]
        head = round(model.head_parameters_b * 1e9 / width)
        self._head = matrix(width, max(1, head))
        self._norm = torch.ones(width, device="cuda", dtype=torch.bfloat16)

    def step(self, hidden: Any, *, prefill: bool) -> Any:
        """One step; `hidden` has shape (batch, query tokens, width)."""
        model, functional = self._model, self._functional
        batch, query, width = hidden.shape
        kv = model.kv_heads * model.head_dim
        for (qkv, output, up, down), (keys, values) in zip(self._layers, self._caches, strict=True):
            normed = functional.rms_norm(hidden, (width,), self._norm)
            projected = normed @ qkv
            queries = (
                projected[..., : -2 * kv].view(batch, query, model.attention_heads, model.head_dim).transpose(1, 2)
            )
            fresh = projected[..., -2 * kv :].view(batch, query, 2, model.kv_heads, model.head_dim)
            for cache, part in ((keys, fresh[:, :, 0]), (values, fresh[:, :, 1])):
                cache[:, :, -query:] = part.transpose(1, 2)
            attended = functional.scaled_dot_product_attention(
                queries, keys, values, is_causal=prefill, enable_gqa=model.kv_heads < model.attention_heads
            )
            hidden = hidden + attended.transpose(1, 2).reshape(batch, query, -1) @ output
            gate, value = (functional.rms_norm(hidden, (width,), self._norm) @ up).chunk(2, dim=-1)
            hidden = hidden + (functional.silu(gate) * value) @ down
        return functional.rms_norm(hidden[:, -1], (width,), self._norm) @ self._head


def measure(torch: Any, model: LlmModel, point: Point, repetitions: int, warmup: int) -> float:
    """Median duration of one step [ms]."""
    network = Transformer(torch, model, point.context_tokens, point.batch)
    hidden = torch.randn(point.batch, point.query_tokens, model.hidden_size, device="cuda", dtype=torch.bfloat16)

    def eager() -> None:
        network.step(hidden, prefill=point.prefill)

    run: Callable[[], None] = eager
    with torch.inference_mode():
        for _ in range(warmup):
            eager()
        torch.cuda.synchronize()
        if not point.prefill:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                eager()
            run = graph.replay
        times_ms = []
        for _ in range(repetitions):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times_ms.append(float(start.elapsed_time(end)))
    return statistics.median(times_ms)


def whole_numbers(text: str) -> list[int]:
    """`1,8,64` as numbers of at least one."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected whole numbers above 0 with commas between, found {text!r}")
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="model of the catalog; repeatable (default llama-3.1-8b)")
    parser.add_argument("--gpu", help="the catalog's name of this GPU (default: by its CUDA name)")
    parser.add_argument("--batches", type=whole_numbers, default=[1, 4, 16, 64, 128, 256])
    parser.add_argument("--query-tokens", type=whole_numbers, default=[128, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--context-tokens", type=whole_numbers, default=[128, 1024, 4096, 16384])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--out", type=Path, help="CSV file (default: standard output)")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def import_torch() -> Any:
    """PyTorch, by a name that type checkers need not know."""
    return importlib.import_module("torch")


def cuda() -> Any:
    """PyTorch with a CUDA GPU, or None with a line that says why not."""
    try:
        torch = import_torch()
    except ImportError:
        say("PyTorch is not installed: nothing measured")
        return None
    if not torch.cuda.is_available():
        say("no CUDA GPU here: nothing measured")
        return None
    return torch


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    catalog = load_catalog()
    names = options.model or ["llama-3.1-8b"]
    unknown = [
        f"--model {name!r} is unknown; {closest(name, catalog.models)}" for name in names if name not in catalog.models
    ]
    if options.gpu is not None and options.gpu not in catalog.gpus:
        unknown.append(f"--gpu {options.gpu!r} is unknown; {closest(options.gpu, catalog.gpus)}")
    if options.repetitions < 1 or options.warmup < 1:
        unknown.append("--repetitions and --warmup: expected 1 or more")
    if options.out is not None and (options.out.is_dir() or not options.out.parent.is_dir()):
        unknown.append(f"--out {options.out}: expected a file in a folder that exists")
    for text in unknown:
        say(f"error: {text}")
    if unknown:
        return 2
    torch = cuda()
    if torch is None:
        return 0
    device = torch.cuda.get_device_name()
    gpu = options.gpu or guess_gpu(device)
    if gpu is None:
        say(f"error: {device} is not in the table of this script; name it with --gpu")
        return 2
    room = MEMORY_SHARE * torch.cuda.get_device_properties(0).total_memory
    rows, skipped = [], 0
    for name in names:
        model = catalog.models[name]
        for point in points(options.batches, options.query_tokens, options.context_tokens):
            if needed_bytes(model, point) > room:
                skipped += 1
                continue
            try:
                step_ms = measure(torch, model, point, options.repetitions, options.warmup)
            except torch.cuda.OutOfMemoryError:  # another process has memory too; what was measured is kept
                skipped += 1
                continue
            finally:
                torch.cuda.empty_cache()
            values = (
                *("prefill" if point.prefill else "decode", gpu, "fp16", name, 1),
                *(point.batch, point.query_tokens, point.context_tokens, round(step_ms, 5)),
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
            shape = f"{point.batch} x {point.query_tokens} at {point.context_tokens}"
            say(f"{name}: {rows[-1]['phase']} of {shape}: {step_ms:.3f} ms")
    if skipped:
        say(f"{skipped} points do not fit into {MEMORY_SHARE:.0%} of {device}'s memory")
    if not rows:
        say("error: no point fits: choose a smaller model")
        return 2
    if options.out is None:
        sys.stdout.write(csv_of(rows))
        return 0
    try:
        write_whole(options.out, csv_of(rows))
    except InputError as error:
        say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
