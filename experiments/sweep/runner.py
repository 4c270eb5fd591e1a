"""Run a sweep: skip what is finished, keep what finishes, go on when a run fails or a worker dies."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from experiments.show.progress import Interrupted
from experiments.sweep.folder import Finished, SweepFolder
from experiments.sweep.outcome import Outcome
from experiments.sweep.specification import Run, Sweep, code_version
from experiments.sweep.workers import Workers
from simulator.errors import RunError, TokenfleetError

Perform = Callable[[str, Mapping[str, Any]], Outcome]
"""Runs a task by its name; a function of a module, so that workers find it."""
Say = Callable[[str], None]
OTHER_CODE = "its worker has another version of tokenfleet or of its packages"
DIED = "its worker died: killed, out of memory, or crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: with a result or with an error."""

    place: int  # in the sweep
    finished: Finished | None = None
    error: str = ""
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEnd:
    """How a sweep ended: its results, and its failures as `label`, `error`, `details`."""

    table: pa.Table
    failures: Sequence[dict[str, str]]
    skipped: int


def perform_run(perform: Perform, place: int, task: str, parameters: dict[str, Any], code: str) -> Ended:
    """One run, in a worker: whatever goes wrong comes back as a word."""
    if code_version() != code:
        return Ended(place=place, error=OTHER_CODE)
    began = time.perf_counter()
    try:
        outcome = perform(task, parameters)
    except TokenfleetError as error:
        return Ended(place=place, error=str(error))
    except Exception as error:
        return Ended(place=place, error=f"{type(error).__name__}: {error}", details=traceback.format_exc())
    seconds = time.perf_counter() - began
    return Ended(place=place, finished=Finished(rows=outcome.rows, seconds=seconds, machine=outcome.machine))


def run_sweep(sweep: Sweep, path: Path, perform: Perform, workers: Workers, *, resume: bool, say: Say) -> SweepEnd:
    """Run what is not finished, then write the results.

    Parameters
    ----------
    say
        Gets a line for each finished run, with the time that is left.

    Raises
    ------
    InputError
        If the folder is not this sweep's.
    RunError
        If a result cannot be kept (a full disk).
    Interrupted
        On Ctrl-C; what was finished is kept.
    """
    with closing(SweepFolder(path, sweep, resume=resume)) as folder:
        first = {name: place for place, name in reversed(list(enumerate(sweep.ids)))}
        left = [
            place for name, place in sorted(first.items(), key=lambda item: item[1]) if folder.finished(name) is None
        ]
        skipped = len(first) - len(left)
        if skipped:
            say(f"{skipped} of {len(first)} runs were finished before and are skipped")
        failures: list[tuple[int, dict[str, str]]] = []
        clock = _Clock(len(first), skipped)
        try:
            for ended in _all_of(sweep, left, perform, workers, say):
                label = sweep.runs[ended.place].label
                if ended.finished is None:
                    failures.append((ended.place, {"label": label, "error": ended.error, "details": ended.details}))
                    say(f"{clock.tick()} {label}: FAILED: {ended.error}")
                else:
                    folder.keep(sweep.ids[ended.place], ended.finished)
                    say(f"{clock.tick()} {label}: {ended.finished.seconds:.2f} s{clock.left()}")
        except KeyboardInterrupt:
            kept = f"{clock.done - len(failures)} of {len(first)} runs are finished and kept"
            raise Interrupted(f"{kept}: the same command goes on from there") from None
        told = [failure for _, failure in sorted(failures, key=lambda item: item[0])]
        return SweepEnd(table=folder.write_results(told), failures=told, skipped=skipped)


class _Clock:
    """Counts runs and guesses what is left from the pace so far."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self.done, self._skipped = total, done, done
        self._began = time.monotonic()

    def tick(self) -> str:
        self.done += 1
        return f"[{self.done:>{len(str(self._total))}}/{self._total}]"

    def left(self) -> str:
        pace_s = (time.monotonic() - self._began) / max(1, self.done - self._skipped)
        left_s = round(pace_s * (self._total - self.done))
        minutes, seconds = divmod(left_s, 60)
        return f", {minutes}:{seconds:02d} left" if self.done < self._total else ""


def _all_of(sweep: Sweep, places: Sequence[int], perform: Perform, workers: Workers, say: Say) -> Iterator[Ended]:
    """How each run ended. Runs that were with the workers when one died are tried again alone, to tell which it was."""
    code = code_version()
    left = dict.fromkeys(places)
    suspects: list[int] = []
    while left:
        given: list[int] = []
        try:
            for ended in workers(partial(perform_run, perform), _calls(sweep, list(left), code, given)):
                left.pop(ended.place, None)
                yield ended
        except TokenfleetError:
            raise
        except Exception as error:  # each kind of worker dies with an exception of its own
            caught = [place for place in given if place in left]
            if not caught:
                raise RunError(f"the workers cannot be used: {type(error).__name__}: {error}") from None
            say(f"a worker died ({type(error).__name__}): {len(caught)} runs will be tried again, one at a time")
            suspects += caught
            for place in caught:
                left.pop(place)
    for place in suspects:
        try:
            yield from workers(partial(perform_run, perform), _calls(sweep, [place], code, []))
        except TokenfleetError:
            raise
        except Exception:
            yield Ended(place=place, error=DIED)


def _calls(sweep: Sweep, places: Sequence[int], code: str, given: list[int]) -> Iterator[tuple[Any, ...]]:
    """Arguments of `perform_run`; `given` collects the runs that workers have got."""
    for place in places:
        given.append(place)
        run: Run = sweep.runs[place]
        yield place, run.task, dict(run.parameters), code
