"""Requests as inference-perf reports them (`per_request_lifecycle_metrics.json`): a list with an object per request.

Read are `start_time` (seconds of the client's clock; the first is time zero), `info.input_tokens` and
`info.output_tokens`. A failed request counts as well, with the tokens that it had. Source:
https://github.com/kubernetes-sigs/inference-perf (Apache-2.0).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.columns import own_columns
from traces.io.jsonlines import first_object, json_blocks, json_records
from traces.io.paths import leaves
from traces.io.reader import Asked, Block
from traces.io.rows import clock_zeros, is_time

_COLUMNS = {"arrival_s": "start_time", "input_tokens": "info.input_tokens", "output_tokens": "info.output_tokens"}
_KEYS = frozenset({"start_time", "end_time", "request", "info"})


class InferencePerfRequests:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "request"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a list of objects with these keys."""
        return head.lstrip().startswith(b"[") and _KEYS.issubset(first_object(path) or {})

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        records = list(json_records(path))
        first = next((value for _, _, value in records if value is not None), None)
        if first is None:
            raise InputError(f"{path}: expected at least one request, found none")
        columns = own_columns(_COLUMNS, asked, leaves(first), path, "s")
        sent = [value for _, _, value in records if value is not None and not _unsent(value)]
        (zero,) = clock_zeros([[request.get("start_time") for request in sent]])

        def arrival(request: dict[str, Any]) -> dict[str, Any]:
            start: Any = request.get("start_time")
            if columns.time != "start_time" or not is_time(start):
                return {}
            return {"arrival_s": None if _unsent(request) else start - zero}

        yield from json_blocks(path, asked, columns, records=records, extra=arrival, failed=_failed, unit=self.unit)


def _failed(record: dict[str, Any]) -> bool:
    return bool(record.get("error"))


def _unsent(request: dict[str, Any]) -> bool:
    """Whether it failed before it was sent."""
    return _failed(request) and not request.get("start_time")


READER = InferencePerfRequests()
