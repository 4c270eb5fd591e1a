"""A group of commands whose modules are imported when they run; its help knows only what the registry says of them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from experiments.options import QuietOption, dressed
from experiments.show.progress import Interrupted

STYLE: Mapping[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a registry of commands: `module` has a `command`, a function or a group."""

    module: str
    summary: str


def lazy_group(entries: Mapping[str, Entry]) -> typer.Typer:
    """An application of these commands; it still takes a callback, whose docstring is its help."""

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            listed = {
                name: TyperCommand(name=name, help=entry.summary, rich_markup_mode="markdown")
                for name, entry in entries.items()
            }
            super().__init__(**{**attributes, "commands": listed})

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            name, listed, rest = super().resolve_command(ctx, args)
            return name, listed if name is None else load(entries[name]), rest

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                raise Interrupted from None

    return typer.Typer(cls=Group, no_args_is_help=True, **STYLE)


def load(entry: Entry) -> Any:
    """The command itself: its module is imported."""
    command = import_module(entry.module).command
    if not isinstance(command, typer.Typer):
        app = typer.Typer(**STYLE)
        app.command()(_quieter(command))
        command = app
    return typer.main.get_command(command)


def _quieter(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--quiet`, so that it may stand behind the command as well as before it."""

    def run(context: typer.Context, quiet: QuietOption = False, **given: Any) -> None:
        context.obj.quiet |= quiet
        command(context=context, **given)

    own = inspect.signature(run).parameters["quiet"]
    return dressed(run, command, [*inspect.signature(command).parameters.values(), own])
