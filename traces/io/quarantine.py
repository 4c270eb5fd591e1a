"""Where bad rows go: a file beside the run, with each row as it stood and what was wrong with it."""

import csv
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from simulator.errors import InputError
from traces.io.reader import BadRow


class Quarantine:
    """The bad rows of one trace file, in `FOLDER/NAME.bad-rows.csv`: written as they come, kept whole or not at all.

    Files of one name in several folders are told apart: the rows of the second are in `NAME.2.bad-rows.csv`.

    Parameters
    ----------
    path
        The trace file.
    folder
        Where the rows go; made if need be.
    nth
        Which of the files of this name it is.
    """

    def __init__(self, path: Path, folder: Path, nth: int = 1) -> None:
        number = f".{nth}" if nth > 1 else ""
        self.target = folder / f"{path.name}{number}.bad-rows.csv"
        self._trace = path
        self._rows = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, self._temporary = tempfile.mkstemp(dir=folder, prefix=f".{self.target.name}.")
        except OSError as error:
            raise self._unwritable(error) from None
        self._file = os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["file", "row", "problem", "text"])

    def add(self, row: BadRow) -> None:
        """Take in one row."""
        try:
            self._writer.writerow([str(self._trace), row.number, row.problem, row.text])
        except OSError as error:
            raise self._unwritable(error) from None
        self._rows += 1

    def keep(self) -> Path | None:
        """Give the file its name, and tell it. One without rows is not kept, nor is one of an earlier run."""
        try:
            self._file.close()
            if self._rows:
                Path(self._temporary).chmod(0o644)
                Path(self._temporary).replace(self.target)
            else:
                self.target.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        return self.target if self._rows else None

    def close(self) -> None:
        """Leave nothing behind that was not kept."""
        with suppress(OSError):  # what is not kept need not be written
            self._file.close()
        Path(self._temporary).unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"{self.target}: cannot be written: {error.strerror}")
