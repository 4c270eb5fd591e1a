"""Pydantic at the edge: one way to turn validation errors into messages for the user."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from simulator.errors import InputError


class StrictModel(BaseModel):
    """Base of every file schema: unknown keys are errors, values are frozen, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


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
