"""Spans of OpenTelemetry with the GenAI conventions: a span per line, or what the OTLP exporters write.

A request is a span with `gen_ai.usage.input_tokens` (formerly `prompt_tokens`); others are passed over, and so are
agents and tools, whose tokens are those of the requests inside. A failed request counts with the tokens that it had.
The source is the service, if the resource names one. Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.columns import own_columns
from traces.io.document import has_key
from traces.io.jsonlines import Record, first_object, json_blocks, json_records
from traces.io.paths import MISSING, at, leaves
from traces.io.reader import Asked, Block, shown

_USAGE = "attributes.gen_ai.usage."
_TIMES = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", "timestamp")
_COUNTS = {"input_tokens": ("input_tokens", "prompt_tokens"), "output_tokens": ("output_tokens", "completion_tokens")}
_INSIDE = ("invoke_agent", "create_agent", "invoke_workflow", "execute_tool")


class OtelSpans:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it has spans: with the usage of a model, or as the exporters write them."""
        if has_key(path, head, "resourceSpans"):
            return True
        first = first_object(path) if b'"attributes"' in head else None
        return first is not None and any(time in first for time in _TIMES) and b"gen_ai." in head

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        passed = {"over": 0}
        records = _requests(path, passed)
        first = next(records, None)
        span = None if first is None else first[2]
        if span is None:
            raise InputError(
                f"{path}: expected spans with {_USAGE}input_tokens, found none among {passed['over']:,} spans"
            )
        taken = {"arrival_s": next((time for time in _TIMES if time in span), _TIMES[0])}
        taken |= {role: _there(span, names) for role, names in _COUNTS.items()}
        if "service" in span:
            taken["source"] = "service"
        columns = own_columns(taken, asked, leaves(span), path)
        every = _requests(path, passed := {"over": 0})
        yield from json_blocks(path, asked, columns, records=every, failed=_failed)
        if passed["over"]:
            asked.tell(f"{passed['over']:,} spans are no requests to a model, and are passed over")


def _there(span: dict[str, Any], names: tuple[str, ...]) -> str:
    paths = [_USAGE + name for name in names]
    return next((path for path in paths if at(span, path) is not MISSING), paths[0])


def _requests(path: Path, passed: dict[str, int]) -> Iterator[Record]:
    """The spans that are requests, and what is no object at all; the others are counted."""
    for number, text, value in json_records(path):
        for span in [None] if value is None else _spans(value):
            if span is None:
                yield number, text, None
            elif _is_request(span):
                yield number, text if span is value else shown(span), span
            else:
                passed["over"] += 1


def _is_request(span: dict[str, Any]) -> bool:
    if at(span, "attributes.gen_ai.operation.name") in _INSIDE:
        return False
    return any(at(span, _USAGE + name) is not MISSING for names in _COUNTS.values() for name in names)


def _spans(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of what an exporter writes at once, each with its service; or the one span."""
    if "resourceSpans" not in value:
        yield value
        return
    for of_resource in _objects(value["resourceSpans"]):
        service = at(of_resource, "resource.attributes.service.name")
        known = {"service": service} if isinstance(service, str) and service else {}
        for of_scope in _objects(of_resource.get("scopeSpans")):
            yield from ({**span, **known} for span in _objects(of_scope.get("spans")))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _failed(span: dict[str, Any]) -> bool:
    return at(span, "status.code") in (2, "STATUS_CODE_ERROR", "ERROR") or at(span, "status.status_code") == "ERROR"


READER = OtelSpans()
