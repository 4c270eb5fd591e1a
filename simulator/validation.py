"""Pydantic at the edge: one way to turn validation errors into messages for the user."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict, ValidationError

from simulator.errors import InputError


class StrictModel(BaseModel):
    """Base of every file schema: unknown keys are errors, values are frozen, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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


def input_error(source: str, error: ValidationError) -> InputError:
    """All problems of one file, each with its field's path, what was expected and what was found."""
    lines = []
    items = error.errors()
    wrong = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in wrong:
            continue  # Pydantic counts only the good items of a list: the bad ones are reported themselves
        found = "" if item["type"] in ("missing", "extra_forbidden") else f", found {_shorten(item['input'])}"
        message = "this key does not exist" if item["type"] == "extra_forbidden" else item["msg"]
        message = message.removeprefix("Value error, ")
        lines.append(f"{source}: {field_path(item['loc'])}: {message}{found}")
    return InputError(lines)


def _shorten(value: object, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
