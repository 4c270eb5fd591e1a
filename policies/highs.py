"""HiGHS through `highspy`, made so that it is silent and gives the same result in every process.

The linear programs of the planners are small and many: built as arrays and handed to HiGHS directly they take about a
millisecond, where Pyomo would take some ten times as long to build and translate the same model. (`milp`, one large
model that people read, is Pyomo's.)
"""

import functools
import os

import highspy

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
        kept = os.dup(1)
    except OSError:  # no standard output, nothing to keep clean
        highspy.Highs()
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
