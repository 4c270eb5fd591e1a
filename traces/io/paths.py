"""Where a value stands in a JSON record: `usage.prompt_tokens`, `attributes[3].value`, `attributes.gen_ai.system`.

A path goes by keys with dots between them and by places in lists. A key may have dots itself: the longest that is there
is taken. A list of `{"key": ..., "value": ...}`, as OpenTelemetry writes attributes, is gone through by its keys, and
text that is JSON itself, as a payload that was logged, like the JSON that it is.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

MISSING = object()
"""What a path leads to where there is nothing."""

_MOST_LEAVES = 300
_DEEPEST = 6
_MOST_ITEMS = 4
_PLACE = re.compile(r"\[(\d+)\]\.?")
_TYPED = ("intValue", "doubleValue", "stringValue", "boolValue")


def at(record: Any, path: str) -> Any:
    """The value at a path, `MISSING` if there is none."""
    if path == "":
        return _plain(record)
    if isinstance(record, dict):
        if path in record:
            return _plain(record[path])
        ends = [match.start() for match in re.finditer(r"[.\[]", path)]
        for end in reversed(ends):
            if path[:end] in record:
                return at(record[path[:end]], path[end:].removeprefix("."))
        return MISSING
    if isinstance(record, list):
        place = _PLACE.match(path)
        if place is not None:
            return at(record[int(place[1])], path[place.end() :]) if int(place[1]) < len(record) else MISSING
        return at(_attributes(record), path)
    inner = _json_in(record)
    return MISSING if inner is None else at(inner, path)


def leaves(record: Any) -> list[str]:
    """The paths of all values of a record that are no objects or lists, the first few hundred of them."""
    found: list[str] = []
    for path in _leaves(record, "", _DEEPEST):
        found.append(path)
        if len(found) == _MOST_LEAVES:
            break
    return found


def _leaves(value: Any, path: str, deeper: int) -> Iterator[str]:
    inner: Any = value if isinstance(value, (dict, list)) else _json_in(value)
    if isinstance(inner, list):
        inner = _attributes(inner) or inner
    if inner is None or _plain(inner) is not inner:
        yield path
    elif deeper and isinstance(inner, dict):
        for key, item in inner.items():
            yield from _leaves(item, f"{path}.{key}" if path else key, deeper - 1)
    elif deeper:
        for place, item in enumerate(inner[:_MOST_ITEMS]):
            yield from _leaves(item, f"{path}[{place}]", deeper - 1)


def _attributes(items: list[Any]) -> dict[str, Any]:
    """A list of keys and values as an object."""
    return {
        item["key"]: item.get("value") for item in items if isinstance(item, dict) and isinstance(item.get("key"), str)
    }


def _plain(value: Any) -> Any:
    """The value that OpenTelemetry writes as `{"intValue": "7"}`."""
    if isinstance(value, dict) and len(value) == 1:
        (kind, inner), *_ = value.items()
        if kind == "intValue" and isinstance(inner, str) and re.fullmatch(r"-?\d{1,19}", inner):
            return int(inner)
        if kind in _TYPED:
            return inner
    return value


def _json_in(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, str) or not value.startswith("{"):
        return None
    try:
        inner = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return inner if isinstance(inner, dict) else None
