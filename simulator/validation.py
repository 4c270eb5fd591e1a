"""Pydantic at the edge: one way to turn validation errors into messages for the user."""

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from simulator.errors import InputError


class StrictModel(BaseModel):
    """Base of every file schema: unknown keys are errors, values are frozen, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)
LARGEST = 1e30  # of the numbers in a file


def validated(schema: type[Model], raw: object, source: str, *, context: Any = None) -> Model:
    """What a file holds, as its schema has it.

    Raises
    ------
    InputError
        Naming `source`, the path of each field that cannot be used, what was expected and what was found.
    """
    try:
        return schema.model_validate(raw, context=context)
    except ValidationError as error:
        raise input_error(source, error, schema) from None


def refuse_beyond_reason(raw: object, source: str) -> None:
    """Refuse numbers that no unit explains, in what is planned from: arithmetic with them overflows.

    Raises
    ------
    InputError
        Naming `source` and the path of each.
    """
    if beyond := list(_beyond_reason(raw, ())):
        expected = f"expected a number of at most {LARGEST:g} and, unless it is zero, of at least {1 / LARGEST:g}"
        raise InputError(f"{source}: {field_path(where)}: {expected}, found {value!r}" for where, value in beyond)


def _beyond_reason(raw: object, where: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], float]]:
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _beyond_reason(value, (*where, str(key)))
    elif isinstance(raw, list | tuple):
        for number, value in enumerate(raw):
            yield from _beyond_reason(value, (*where, number))
    elif isinstance(raw, int | float) and raw != 0 and not 1 / LARGEST <= abs(raw) <= LARGEST:
        yield where, raw


def refuse_other_types(schema: type[BaseModel], raw: object, source: str) -> None:
    """Refuse `true` for 1 and `"25"` for 25, which `validated` takes: of a file the types count, too.

    Raises
    ------
    InputError
        As `validated`.
    """
    try:
        schema.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        raise input_error(source, error, schema) from None


def closest(name: str, known: Iterable[str]) -> str:
    """What the user may have meant by an unknown name, for the end of a message."""
    names = list(known)
    matches = get_close_matches(name.lower(), names)
    return f"did you mean {' or '.join(map(repr, matches))}" if matches else f"expected one of {', '.join(names)}"


def field_path(location: tuple[int | str, ...]) -> str:
    """`("tiers", 2, "price")` as `tiers[2].price`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(top level)"


def input_error(source: str, error: ValidationError, schema: object = None) -> InputError:
    """All problems of one file, each with its field's path, what was expected and what was found.

    With the schema, an unknown key is told the known ones that it may have been meant for.
    """
    lines = []
    items = error.errors()
    wrong = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in wrong:
            continue  # Pydantic counts only the good items of a list: the bad ones are reported themselves
        message, found = item["msg"].removeprefix("Value error, "), f", found {_shorten(item['input'])}"
        if item["type"] == "missing" or (item["type"] == "value_error" and isinstance(item["input"], dict)):
            found = ""  # a table that does not fit together is told of by its fields
        elif item["type"] == "extra_forbidden":
            known = _known_keys(schema, item["loc"])
            message, found = "this key does not exist", f"; {closest(str(item['loc'][-1]), known)}" if known else ""
        lines.append(f"{source}: {field_path(item['loc'])}: {message}{found}")
    return InputError(lines)


def _known_keys(annotation: Any, location: tuple[int | str, ...]) -> list[str]:
    """Keys that a schema has where it does not have the last part of a location."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
        return list(fields) if len(location) == 1 else _known_keys(fields.get(str(location[0])), location[1:])
    inside = location[1:] if get_origin(annotation) in (list, tuple, dict, Mapping) else location
    return next((keys for part in get_args(annotation) if (keys := _known_keys(part, inside))), [])


def _shorten(value: object, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
