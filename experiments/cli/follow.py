"""`tokenfleet follow`: the life of one request."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.options import JsonOption
from experiments.replay.timeline import read_life
from experiments.report.life import life_dict, life_lines
from experiments.show.progress import Terminal


def command(
    context: typer.Context,
    request: Annotated[int, typer.Argument(min=0, help="Number of the request: `request` in requests.parquet.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory of a replay with --token-log.")],
    policy: Annotated[str | None, typer.Option("--policy", help="Which run, where there are several.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="A line for each token.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what one request went through: queue, prefill chunks, tokens, preemptions, failures.

    Example: `tokenfleet follow 17 runs/azure --policy gh`
    """
    terminal: Terminal = context.obj
    life = read_life(directory, request, policy)
    if as_json:
        terminal.print_json(life_dict(life))
        return
    for line in life_lines(life, tokens=tokens):
        terminal.say(line)
