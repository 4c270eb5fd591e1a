"""Where bad rows go: a file beside the run, with each row as it stood and what was wrong with it."""

import csv
import os
import tempfile
from pathlib import Path

from simulator.errors import InputError
from traces.reader import BadRow


class Quarantine:
    """The bad rows of one trace file, in `FOLDER/NAME.bad-rows.csv`: written as they come, kept whole or not at all.

    Parameters
    ----------
    path
        The trace file.
    folder
        Where the rows go; made if need be.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.target = folder / f"{path.name}.bad-rows.csv"
        self._trace = path
        self._rows = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, self._temporary = tempfile.mkstemp(dir=folder, prefix=f".{self.target.name}.")
        except OSError as error:
            raise InputError(f"{self.target}: cannot be written: {error.strerror}") from None
        self._file = os.fdopen(handle, "w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["file", "row", "problem", "text"])

    def add(self, row: BadRow) -> None:
        """Take in one row."""
        self._writer.writerow([str(self._trace), row.number, row.problem, row.text])
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
            raise InputError(f"{self.target}: cannot be written: {error.strerror}") from None
        return self.target if self._rows else None

    def close(self) -> None:
        """Leave nothing behind that was not kept."""
        self._file.close()
        Path(self._temporary).unlink(missing_ok=True)
