"""How a command answers: results on standard output, progress and messages on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from experiments.show.atomic_write import to_json
from experiments.show.printable import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from simulator.planning.policy import SearchProgress


class Interrupted(Exception):
    """Ctrl-C, with how far the command had come."""


class Terminal:
    """What every command finds in `context.obj`.

    Attributes
    ----------
    quiet
        Whether progress and notes are left out; warnings and errors never are.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    @cached_property
    def out(self) -> "Console":
        """Standard output, for tables."""
        return console()

    @cached_property
    def err(self) -> "Console":
        """Standard error."""
        return console(stderr=True)

    def say(self, text: str) -> None:
        """A line of plain text on standard output, never broken or marked up."""
        self.out.print(text, highlight=False, markup=False, soft_wrap=True)

    def print_json(self, value: object) -> None:
        """One JSON object on standard output."""
        sys.stdout.write(to_json(value))

    def note(self, text: str) -> None:
        """A line on standard error that is good to know."""
        if not self.quiet:
            self.err.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line on standard error that does not stop anything."""
        self.complain(f"warning: {text}")

    def complain(self, text: str) -> None:
        """A line on standard error that nobody should miss."""
        style = "red" if self.err.is_terminal else None
        self.err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress_bars(self) -> "Iterator[Bars]":
        """Give bars that redraw only when told to: a refreshing thread would write into the output that Pyomo captures.

        Raises
        ------
        Interrupted
            On Ctrl-C inside.
        """
        with nullcontext() if self.quiet or not self.err.is_terminal else _progress(self.err) as shown:
            bars = Bars(shown)
            try:
                yield bars
            except KeyboardInterrupt:
                raise Interrupted(f"{bars.reached()}; nothing was written") from None


def _progress(console: "Console") -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, auto_refresh=False)


class Bars:
    """Named progress bars that also remember how far each has come; without a `Progress` nobody sees them."""

    def __init__(self, progress: "Progress | None") -> None:
        self._progress = progress
        self._reached: dict[str, str] = {}

    def start(self, name: str, horizon_s: float | None = None) -> Callable[[float], None]:
        """Start a bar; the function that is given back takes the share that is done, of a simulated horizon if any."""
        show = self._bar(name)

        def update(done: float) -> None:
            simulated = "" if horizon_s is None else f" ({done * horizon_s / 60:.1f} of {horizon_s / 60:.1f} min)"
            self._reached[name] = f"{name} {done:.0%}{simulated}"
            show(completed=done)

        update(0.0)
        return update

    def search(self, name: str) -> "Callable[[SearchProgress], None] | None":
        """Start a bar that shows how a search closes its gap; None where nobody would see it."""
        if self._progress is None:
            self._reached[name] = f"{name} was searching"
            return None
        show = self._bar(name)

        def update(progress: "SearchProgress") -> None:
            cost, bound = progress.cost_usd, progress.bound_usd
            told = [name]
            told += [] if cost is None else [f"cost {cost:.4g} USD"]
            told += [] if bound is None else [f"bound {bound:.4g} USD"]
            if cost is not None and bound is not None:
                gap = max(0.0, cost - bound) / max(abs(cost), 1e-12)
                told.append(f"gap {gap:.2%}")
                show(completed=1.0 - gap)
            self._reached[name] = ", ".join(told)
            show(description=", ".join(told))

        return update

    def _bar(self, name: str) -> Callable[..., None]:
        """A new bar, as a function that changes it and draws it anew."""
        progress = self._progress
        if progress is None:
            return lambda **changes: None
        task = progress.add_task(name, total=1.0)

        def show(**changes: Any) -> None:
            progress.update(task, **changes)
            progress.refresh()

        return show

    def reached(self) -> str:
        """How far each has come."""
        return ", ".join(self._reached.values()) or "nothing had begun"
