"""What a study is: a command that asks for runs, and a way to show their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.show.parts import Section
from experiments.studies.shared.view import Claim

View = Callable[[pd.DataFrame, pd.DataFrame, Mapping[str, Any]], list[Section]]
"""Sections of the results, from the rows, the machine times and the marker of the sweep."""


def no_claims(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> Sequence[Claim]:
    """Of a study that bears on nothing the paper says."""
    del frame, timing, marker
    return ()


@dataclass(frozen=True, slots=True)
class Study:
    """A module of `experiments.studies`. `command` is a typer command; its context holds an
    `experiments.show.progress.Terminal`.
    """

    summary: str
    command: Callable[..., None]
    view: View
    claims: Callable[[pd.DataFrame, pd.DataFrame, Mapping[str, Any]], Sequence[Claim]] = no_claims
