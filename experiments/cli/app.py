"""The command line `tokenfleet`: where it begins, and how it ends.

Standard output holds results only (with `--json` one object and nothing else); progress and messages go to standard
error. Exit codes: 0 done, 1 the run failed (or a check did), 2 bad input, 130 interrupted. Everything is imported
inside `main`, so that Ctrl-C ends in a line even while modules load.
"""

import signal
import sys
from contextlib import suppress

SHOWN_PROBLEMS = 20


def main() -> None:
    """Run the command, and turn errors into messages and exit codes. SIGTERM ends it as Ctrl-C does."""
    try:
        with suppress(ValueError):  # in the main thread only
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        _run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _run() -> None:
    from experiments.cli.commands import app
    from experiments.show.progress import Interrupted, Terminal
    from simulator.errors import InputError, TokenfleetError

    terminal = Terminal()
    try:
        app()
    except InputError as error:
        for problem in error.problems[:SHOWN_PROBLEMS]:
            terminal.complain(f"error: {problem}")
        if len(error.problems) > SHOWN_PROBLEMS:
            terminal.complain(f"... and {len(error.problems) - SHOWN_PROBLEMS} more")
        sys.exit(2)
    except TokenfleetError as error:
        terminal.complain(f"failed: {error}")
        sys.exit(1)
    except Interrupted as error:
        terminal.complain(": ".join(("interrupted", *error.args)))
        sys.exit(130)


if __name__ == "__main__":
    main()
