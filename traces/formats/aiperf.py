"""Records of AIPerf (`profile_export.jsonl`): an object per request with `metadata`, `metrics` and `error`.

Read are `request_start_ns`, and the lengths of prompt and answer from the metrics. A failed or cancelled request counts
as well, with the tokens that it had. Source: https://github.com/ai-dynamo/aiperf (Apache-2.0).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from traces.io.columns import own_columns
from traces.io.jsonlines import first_object, json_blocks
from traces.io.paths import MISSING, at, leaves
from traces.io.reader import Asked, Block

_COLUMNS = {
    "arrival_s": "metadata.request_start_ns",
    "input_tokens": "metrics.input_sequence_length.value",
    "output_tokens": "metrics.output_sequence_length.value",
}
_KEYS = (b'"metadata"', b'"request_start_ns"', b'"metrics"')


class AiperfRecords:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a line has the parts of a record."""
        return head.startswith(b"{") and any(all(key in line for key in _KEYS) for line in head.split(b"\n"))

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        columns = own_columns(_COLUMNS, asked, leaves(first_object(path) or {}), path)
        yield from json_blocks(path, asked, columns, extra=_of_failed, failed=_failed)


def _failed(record: dict[str, Any]) -> bool:
    return bool(record.get("error"))


def _of_failed(record: dict[str, Any]) -> dict[str, Any]:
    """The length of a prompt that was not answered stands elsewhere."""
    tokens = at(record, "metrics.error_isl.value") if _failed(record) else MISSING
    return {} if tokens is MISSING else {"input_tokens": tokens}


READER = AiperfRecords()
