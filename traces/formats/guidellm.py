"""Results of GuideLLM (`benchmarks.json`): an object with runs, each with its requests by how they ended.

Read are the start of each request (seconds since 1970), `prompt_tokens` and `output_tokens`; what failed or was cut
off counts as well, with the tokens that it had, and is no arrival if it states no start. With several runs each is a
source, `run1`, `run2`, ...; they follow each other on one clock. Source:
https://github.com/vllm-project/guidellm (src/guidellm/schemas/request_stats.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.document import has_key, read_documents
from traces.io.reader import Asked, Block, short, shown
from traces.io.rows import Rows, in_blocks

_ENDINGS = ("successful", "incomplete", "errored")
_STARTS = ("request_start_time", "start_time")
_NAMES = {"arrival_s": _STARTS[0], "input_tokens": "prompt_tokens", "output_tokens": "output_tokens"}


class GuidellmReport:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "request"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a JSON object with runs."""
        return has_key(path, head, "benchmarks")

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        runs = []
        for document in read_documents(path):
            some = document.get("benchmarks")
            if not isinstance(some, list) or not some:
                raise InputError(f"{path}: field benchmarks: expected a list of runs, found {short(shown(some))}")
            runs += some
        requests = list(_requests(path, runs))
        if not requests:
            raise InputError(f"{path}: expected at least one request, found none")
        rows = Rows(path, asked, unit=self.unit, time_unit="s")

        def read() -> Iterator[None]:
            for number, (source, ending, request) in enumerate(requests, start=1):
                _add(rows, number, source, ending, request)
                yield

        yield from in_blocks(rows, asked, read())


def _requests(path: Path, runs: list[Any]) -> Iterator[tuple[str | None, str, Any]]:
    for k, run in enumerate(runs):
        by_ending = run.get("requests") if isinstance(run, dict) else None
        if not isinstance(by_ending, dict):
            raise InputError(
                f"{path}: field benchmarks[{k}].requests: expected an object, found {short(shown(by_ending))}"
            )
        source = None if len(runs) == 1 else f"run{k + 1}"
        for ending in _ENDINGS:
            requests = by_ending.get(ending) or []
            if not isinstance(requests, list):
                field = f"benchmarks[{k}].requests.{ending}"
                raise InputError(f"{path}: field {field}: expected a list, found {short(shown(requests))}")
            yield from ((source, ending, request) for request in requests)


def _add(rows: Rows, number: int, source: str | None, ending: str, request: Any) -> None:
    if not isinstance(request, dict):
        rows.refuse(number, f"expected an object, found {short(shown(request))}", shown(request))
        return
    fields: dict[str, Any] = {} if source is None else {"source": source}
    for role in ("input_tokens", "output_tokens"):
        value = request.get(_NAMES[role])
        fields[role] = 0 if value is None and ending != "successful" else value
    fields["arrival_s"] = next((request[name] for name in _STARTS if request.get(name) is not None), None)
    if not fields["arrival_s"] and ending != "successful":
        rows.fail()
        return
    read = {name: request.get(name) for name in (*_STARTS, "prompt_tokens", "output_tokens")}
    rows.add(number, f"{ending}: {shown(read)}", fields, _NAMES)


READER = GuidellmReport()
