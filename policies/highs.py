"""HiGHS through `highspy`, made so that it is silent and gives the same result in every process.

The linear programs of the planners are small and many: built as arrays and handed to HiGHS directly they take about a
millisecond, where Pyomo would take some ten times as long to build and translate the same model. (`milp`, one large
model that people read, is Pyomo's.)
"""

import functools
import os

import highspy
import numpy as np

from simulator.errors import SolverError
from simulator.planning.problem import FloatArray, IntArray

SETTINGS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "threads": 1,  # one thread, one path, one result
    "random_seed": 0,
}


def new_solver(**settings: bool | int | float | str) -> highspy.Highs:
    """A HiGHS solver that says nothing, with one thread and a fixed seed, and with `settings` of HiGHS's on top."""
    make_ready()
    solver = highspy.Highs()
    for name, setting in (SETTINGS | settings).items():
        solver.setOptionValue(name, setting)
    return solver


def make_ready() -> None:
    """Let the next solver start in a clean process: without a banner, and with a pool of threads of its own.

    HiGHS has one pool per process and refuses to run where another caller, perhaps a user's policy, chose its size.
    """
    _silence_banner()
    highspy.Highs.resetGlobalScheduler(True)


@functools.cache
def _silence_banner() -> None:
    """Swallow what HiGHS prints when the first solver of a process is made.

    HiGHS 1.16 prints its name from the constructor, before any option can be set, to a standard output that is for
    results. C writes it, so the file descriptor itself must look away meanwhile.
    """
    try:
        standard_output = os.dup(1)
    except OSError:  # no standard output, nothing to keep clean
        highspy.Highs()
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
    finally:
        os.dup2(standard_output, 1)
        os.close(standard_output)
        os.close(nowhere)


NO_SOLUTION = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)
"""Of a program with bounded columns: what is unbounded or infeasible is infeasible."""

Part = tuple[IntArray | int, IntArray, FloatArray | float]
"""Entries of a block of rows: their row (counted within the block), column and value. Row and value broadcast."""


class LinearProgram:
    """A linear or mixed-integer program, put together from columns and blocks of sparse rows; the cost is minimised."""

    def __init__(self) -> None:
        self._columns = self._rows = 0
        self._cost: list[FloatArray] = []
        self._upper: list[FloatArray] = []
        self._whole: list[IntArray] = []
        none = np.zeros(0, dtype=np.int64)
        self._entries: list[tuple[IntArray, IntArray, FloatArray]] = [(none, none, np.zeros(0))]
        self._at_least: list[FloatArray] = []
        self._at_most: list[FloatArray] = []

    def columns(self, upper: FloatArray, cost: FloatArray | None = None, *, whole: bool = False) -> IntArray:
        """Add columns from zero to `upper` (n,), free of cost if none is given; returns their numbers (n,)."""
        new = np.arange(self._columns, self._columns + len(upper))
        self._columns += len(upper)
        self._upper.append(upper)
        self._cost.append(np.zeros(len(upper)) if cost is None else cost)
        self._whole += [new] if whole else []
        return new

    def rows(self, *parts: Part, at_least: FloatArray | None = None, at_most: FloatArray | None = None) -> None:
        """Add as many rows as the bounds (n,) have: each bounds the sum of `value * column` over its entries."""
        bound = at_least if at_most is None else at_most
        assert bound is not None
        for row, column, value in parts:
            rows, values = np.empty(column.shape, dtype=np.int64), np.empty(column.shape)
            rows[...], values[...] = row, value
            self._entries.append((rows.ravel() + self._rows, column.ravel(), values.ravel()))
        self._at_least.append(np.full(len(bound), -np.inf) if at_least is None else at_least)
        self._at_most.append(np.full(len(bound), np.inf) if at_most is None else at_most)
        self._rows += len(bound)

    def hand_to(self, solver: highspy.Highs) -> None:
        """Give the program to a solver, in the place of whatever it had."""
        row, column, value = (np.concatenate(arrays) for arrays in zip(*self._entries, strict=True))
        if (row[1:] < row[:-1]).any():
            order = np.argsort(row, kind="stable")
            row, column, value = row[order], column[order], value[order]
        integrality = np.zeros(self._columns, dtype=np.int32)
        for columns in self._whole:
            integrality[columns] = 1
        solver.passModel(
            self._columns,
            self._rows,
            len(row),
            int(highspy.MatrixFormat.kRowwise),
            int(highspy.ObjSense.kMinimize),
            0.0,
            np.concatenate(self._cost),
            np.zeros(self._columns),
            np.concatenate(self._upper),
            np.concatenate(self._at_least),
            np.concatenate(self._at_most),
            np.searchsorted(row, np.arange(self._rows)).astype(np.int32),
            column.astype(np.int32),
            value,
            integrality,
        )


def unit_of(limit: FloatArray) -> FloatArray:
    """What to divide limits by: themselves where they are finite and positive. HiGHS has absolute tolerances."""
    return np.where((limit > 0) & np.isfinite(limit), limit, 1.0)


def failure(solver: highspy.Highs, what: str) -> SolverError:
    """What to raise where HiGHS ended without an answer."""
    return SolverError(f"HiGHS failed on {what} ({solver.modelStatusToString(solver.getModelStatus())})")
