"""Results of `vllm bench serve --save-result --save-detailed`: a JSON object with one list per quantity.

Read are `start_times` (seconds of the client's clock; the first is time zero), `input_lens` and `output_lens`. A failed
request has no output tokens. Source: https://github.com/vllm-project/vllm (vllm/benchmarks/serve.py).
"""

from collections.abc import Iterator
from pathlib import Path

from simulator.errors import InputError
from traces.io.document import read_document
from traces.io.reader import Asked, Block, shown
from traces.io.rows import Rows, in_blocks
from traces.io.times import NS_LIMIT

_LISTS = ("start_times", "input_lens", "output_lens")


class VllmResult:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "request"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a JSON object with the lengths of requests. The first list may be longer than `head`."""
        return head.lstrip().startswith(b"{") and b'"input_lens"' in head

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        document = read_document(path)
        lists = {name: document.get(name) for name in _LISTS}
        for name, values in lists.items():
            if not isinstance(values, list):
                hint = "; write the file with --save-detailed and a vLLM that saves it" if values is None else ""
                raise InputError(f"{path}: field {name}: expected a list, found {_found(values)}{hint}")
        lengths = {name: len(values) for name, values in lists.items() if isinstance(values, list)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"{path}: expected lists of one length, found {told}")
        starts, inputs, outputs = (document[name] for name in _LISTS)
        if not starts:
            raise InputError(f"{path}: field start_times: expected at least one request, found none")
        zero = min((value for value in starts if _is_number(value)), default=0.0)
        names = dict(zip(("arrival_s", "input_tokens", "output_tokens"), _LISTS, strict=True))
        rows = Rows(path, asked, unit=self.unit, time_unit="s")

        def read() -> Iterator[None]:
            for number, values in enumerate(zip(starts, inputs, outputs, strict=True), start=1):
                start, input_tokens, output_tokens = values
                since = start - zero if _is_number(start) else start
                fields = {"arrival_s": since, "input_tokens": input_tokens, "output_tokens": output_tokens}
                rows.add(number, shown(values), fields, names)
                yield

        yield from in_blocks(rows, asked, read())


def _is_number(value: object) -> bool:
    """Whether it can be a time: JSON may have numbers of any size, and NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < NS_LIMIT


def _found(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


READER = VllmResult()
