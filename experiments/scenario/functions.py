"""The user's own functions of a run: step time, admission and router, each from a file (see docs/extending.md)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.replica.extension import Admission, Router, StepTime
from simulator.userfile import load_from_file

PARAMETERS = {
    "step_time": (
        "prefill_tokens, sequences, context_tokens, "
        "base_s, prefill_s_per_token, decode_s_per_sequence, context_s_per_token"
    ),
    "admission": "prompt_tokens, free_kv_tokens, budget_tokens, sequences, waiting",
    "router": "outstanding_tokens, held, routed, uniform, input_tokens, output_tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFunctions:
    """None where the engine's own is used."""

    step_time: StepTime | None = None
    admission: Admission | None = None
    router: Router | None = None

    def given(self) -> list[Callable[..., Any]]:
        return [function for function in (self.step_time, self.admission, self.router) if function is not None]


def load_functions(places: dict[str, tuple[str, Path] | None]) -> UserFunctions:
    """Load the functions that are asked for.

    Parameters
    ----------
    places
        By the names of `PARAMETERS`: `path/to/file.py:function` and the folder that a relative path counts from.

    Raises
    ------
    InputError
        With the problems of all of them: no such file or function, or another number of parameters.
    """
    loaded: dict[str, Any] = {}
    problems: list[str] = []
    for name, place in places.items():
        if place is None:
            continue
        try:
            loaded[name] = _function(name, *place)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return UserFunctions(**loaded)


def _function(name: str, text: str, folder: Path) -> Callable[..., Any]:
    what = name.replace("_", " ")
    function = load_from_file(text, what=what, kind="function", folder=folder)
    if not callable(function):
        raise InputError(f"{what} {text!r}: expected a function")
    wanted = PARAMETERS[name]
    try:
        inspect.signature(getattr(function, "py_func", function)).bind(*wanted.split(", "))
    except TypeError:
        raise InputError(f"{what} {text!r}: expected the parameters ({wanted})") from None
    return function  # type: ignore[no-any-return]
