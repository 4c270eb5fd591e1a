"""Results of `vllm bench serve --save-result --save-detailed`: a JSON object with one list per quantity.

Read are `start_times` (seconds of the client's clock; the first is time zero), `input_lens` and `output_lens`. A failed
request has no output tokens; one that failed before it was sent has the start 0.0, and is counted, but is no arrival.
With several results in a file (`--append-result`) each is a source, `run1`, `run2`, ...; they follow each other on one
clock, that of the client where it went on. Source: https://github.com/vllm-project/vllm (vllm/benchmarks/serve.py).

SGLang's `bench_serving --output-details` has the same lists, but no times.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.document import has_key, read_documents
from traces.io.reader import Asked, Block, shown
from traces.io.rows import Rows, clock_zeros, in_blocks, is_time

_LISTS = ("start_times", "input_lens", "output_lens")
_NAMES = dict(zip(("arrival_s", "input_tokens", "output_tokens"), _LISTS, strict=True))


class VllmResult:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "request"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a JSON object with the lengths of requests. The first list may be longer than `head`."""
        return has_key(path, head, "input_lens")

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        runs = read_documents(path)
        for run in runs:
            _check(path, run)
        rows = Rows(path, asked, unit=self.unit, time_unit="s")
        requests = [list(_requests(run)) for run in runs]
        zeros = clock_zeros([request[0] for request in run if request is not None] for run in requests)
        if len(set(zeros)) > 1:
            asked.tell("the results are of several clocks: each run begins where the one before it ends")

        def read() -> Iterator[None]:
            number = 0
            for k, (run, zero) in enumerate(zip(requests, zeros, strict=True), start=1):
                source = {"source": f"run{k}"} if len(runs) > 1 else {}
                for request in run:
                    number += 1
                    if request is None:
                        rows.fail()
                    else:
                        start, *tokens = request
                        since = start - zero if is_time(start) else start
                        fields = dict(zip(_NAMES, (since, *tokens), strict=True))
                        rows.add(number, shown(request), fields | source, _NAMES)
                    yield

        yield from in_blocks(rows, asked, read())


def _check(path: Path, run: dict[str, Any]) -> None:
    lists = {name: run.get(name) for name in _LISTS}
    if lists["start_times"] is None and lists["input_lens"] is not None and "dataset_name" in run:
        raise InputError(
            f"{path}: field start_times: found nothing: SGLang's bench_serving keeps no start times, so that nothing "
            "is known of the arrivals; vllm bench serve --save-detailed keeps them, against an SGLang server too"
        )
    for name, values in lists.items():
        if not isinstance(values, list):
            hint = "; write the file with --save-detailed and a vLLM that saves it" if values is None else ""
            raise InputError(f"{path}: field {name}: expected a list, found {_found(values)}{hint}")
    lengths = {name: len(values) for name, values in lists.items() if isinstance(values, list)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{path}: expected lists of one length, found {told}")
    if not lists["start_times"]:
        raise InputError(f"{path}: field start_times: expected at least one request, found none")


def _requests(run: dict[str, Any]) -> Iterator[tuple[Any, Any, Any] | None]:
    """Start, input and output tokens of each request; None if it failed before it was sent."""
    errors: Any = run.get("errors")
    for place, request in enumerate(zip(*(run[name] for name in _LISTS), strict=True)):
        known = isinstance(errors, list) and place < len(errors)
        failed = bool(errors[place]) if known else request[2] == 0
        yield None if failed and request[0] == 0 else request


def _found(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


READER = VllmResult()
