"""Profiles of Triton's perf_analyzer (`--profile-export-file`): an object with experiments, each with its requests.

Read are `timestamp` (nanoseconds since 1970) and the `usage` that an OpenAI server states in one of its responses.
Where no response states it, the user has to name what holds the numbers of tokens, or to state them. With several
experiments each is a source, `run1`, `run2`, ... Source: https://github.com/triton-inference-server/perf_analyzer.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.document import has_key, read_documents
from traces.io.jsonlines import Record, json_blocks, record_columns
from traces.io.reader import Asked, Block, short, shown

_USAGE = {name: re.compile(rf'"{name}"\s*:\s*(\d{{1,9}})\b') for name in ("prompt_tokens", "completion_tokens")}


class PerfAnalyzerProfile:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "request"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a JSON object with experiments of these requests."""
        return has_key(path, head, "experiments") and has_key(path, head, "response_timestamps")

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        records = list(_records(path))
        first = next((value for _, _, value in records if value is not None), None)
        if first is None:
            raise InputError(f"{path}: expected at least one request, found none")
        columns = record_columns(first, asked, path, "request 1")
        columns = replace(columns, time_unit=columns.time_unit or "ns")
        yield from json_blocks(path, asked, columns, records=records, unit=self.unit)


def _records(path: Path) -> Iterator[Record]:
    experiments = [run for document in read_documents(path) for run in _list(path, document, "experiments")]
    number = 0
    for k, experiment in enumerate(experiments, start=1):
        source = {"source": f"run{k}"} if len(experiments) > 1 else {}
        for request in _list(path, experiment, "requests"):
            number += 1
            value = {**request, **_usage(request), **source} if isinstance(request, dict) else None
            yield number, shown(request), value


def _list(path: Path, value: Any, name: str) -> list[Any]:
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise InputError(f"{path}: field {name}: expected a list, found {short(shown(items))}")
    return items


def _usage(request: dict[str, Any]) -> dict[str, int]:
    """The numbers of tokens that the last response with such a number states."""
    outputs = request.get("response_outputs")
    found: dict[str, int] = {}
    for output in outputs if isinstance(outputs, list) else []:
        text = output.get("response") if isinstance(output, dict) else None
        for name, number in _USAGE.items():
            stated = number.findall(text) if isinstance(text, str) else []
            found |= {name: int(stated[-1])} if stated else {}
    return found


READER = PerfAnalyzerProfile()
