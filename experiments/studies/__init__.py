"""Studies: questions that take many plans to answer. Every module of this folder is one; a new one is a new module.

A study is a sweep (`experiments.sweep`) with a way to show it; docs/studies.md says what they measure and what they
found. Its module has

- a docstring, whose first line is the summary that lists and reports show;
- `command`, decorated with `study` of `experiments.studies.shared.conduct`: its options and what runs they ask for;
- `view`, which makes sections of words, tables and charts of the results;
- `claims`, if it bears on what the paper says.

What studies share is in `shared`, what their runs do in `tasks`.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.studies.shared.port import Study


@cache
def summaries() -> dict[str, str]:
    """What each study asks, by its name; no study is imported."""
    modules = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name != "__init__.py")
    return {path.stem: _summary(path) for path in modules}


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().strip().strip('"').removesuffix(".")


def load_study(name: str) -> "Study":
    """A study by its name.

    Raises
    ------
    KeyError
        If there is none.
    """
    from experiments.studies.shared.port import Study, no_claims

    summary = summaries()[name]
    module = import_module(f"{__name__}.{name}")
    return Study(summary, module.command, module.view, getattr(module, "claims", no_claims))
