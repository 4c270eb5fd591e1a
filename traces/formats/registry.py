"""Read a trace file of any known format. A new format is a module with a `READER` and one line in `READERS`."""

import stat
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from simulator.errors import InputError
from simulator.validation import closest
from simulator.workload import Trace
from traces.io.chunks import concatenate
from traces.io.lines import check_packed, check_utf8, head
from traces.io.on_bad_row import OnBadRow
from traces.io.order import WINDOW_ROWS, Order, TooLate, in_order, on_clock, without_steps_back
from traces.io.reader import HEAD_BYTES, MAX_PROBLEMS, Asked, BadRow, Block, Reader


@dataclass(frozen=True, slots=True)
class Format:
    """One line of the registry: what the format is, the module that has its `READER`, whether `--map` is for it."""

    summary: str
    module: str
    mapped: bool = False

    @property
    def reader(self) -> Reader:
        """The reader of the format, imported when it is needed: Arrow takes its time."""
        reader: Reader = import_module(self.module).READER
        return reader


# The first that recognises a file reads it: `jsonl` and `table` take whatever has columns of known names and come last.
READERS: dict[str, Format] = {
    "tokenfleet": Format("Parquet as tokenfleet writes it", "traces.io.parquet"),
    "azure-lmm": Format("Azure multimodal trace of 2025, with images", "traces.formats.azure_lmm"),
    "azure": Format("Azure LLM inference traces of 2023 and 2024", "traces.formats.azure"),
    "burstgpt": Format("BurstGPT", "traces.formats.burstgpt"),
    "qwen-bailian": Format("Qwen-Bailian, JSON lines with prefix hashes", "traces.formats.qwen_bailian", mapped=True),
    "mooncake": Format("Mooncake, JSON lines with prefix hashes", "traces.formats.mooncake", mapped=True),
    "servegen": Format("rates by window and token quantiles; requests are drawn", "traces.formats.servegen"),
    "vllm": Format("result of vllm bench serve --save-detailed", "traces.formats.vllm"),
    "guidellm": Format("result of GuideLLM", "traces.formats.guidellm"),
    "aiperf": Format("records of AIPerf", "traces.formats.aiperf", mapped=True),
    "inference-perf": Format("requests of inference-perf", "traces.formats.inference_perf", mapped=True),
    "perf-analyzer": Format("profile of Triton's perf_analyzer", "traces.formats.perf_analyzer", mapped=True),
    "otel": Format("OpenTelemetry spans of GenAI requests", "traces.formats.otel", mapped=True),
    "jsonl": Format("JSON lines or a list, keys by names, paths or --map", "traces.io.jsonlines", mapped=True),
    "table": Format("CSV, TSV or Parquet, columns by their names or --map", "traces.io.table", mapped=True),
}

CHUNK_ROWS = 2**17
"""About how many requests of a file a chunk has."""


class OutOfOrder(InputError):
    """A file is further out of order than can be sorted on the way; `traces.sorting` does it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(problem)
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read.

    Attributes
    ----------
    trace_format
        A key of `READERS`; recognised from the content if none is given.
    columns
        Columns by what they hold; see `traces.io.reader.Asked`.
    time_unit, block_tokens
        See `traces.io.reader.Asked`.
    on_bad_row
        Whether a bad row is an error, is left out and counted, or is written to a file besides.
    strict
        Whether a row that goes back in time is a bad row; if not, rows are sorted.
    quarantine
        Folder for the bad rows of each file, `NAME.bad-rows.csv`.
    window_rows
        How many rows are held back for sorting.
    """

    trace_format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    block_tokens: int | None = None
    on_bad_row: OnBadRow = OnBadRow.ERROR
    strict: bool = False
    quarantine: Path = Path()
    window_rows: int = WINDOW_ROWS

    def stated_units(self) -> dict[str, str | int]:
        """The units that the user states, by their names."""
        stated = {"time_unit": self.time_unit, "block_tokens": self.block_tokens}
        return {name: value for name, value in stated.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRead:
    """What reading a file came to.

    Attributes
    ----------
    format
        Name of the format in `READERS`.
    rows_in_file, rows_skipped
        In nearly all formats the difference is the number of requests, those of `rows_failed` aside.
    rows_failed
        Requests that failed before they were sent: they state no time, and are no arrivals.
    rows_out_of_order
        How often a row was earlier than the one before it; they were sorted.
    first_problems
        What was wrong with the first skipped rows; empty if none was skipped.
    notes
        What the user should know about how the file was read, a sentence each.
    quarantine
        The file that the skipped rows are in, if they were written to one.
    """

    path: Path
    format: str
    rows_in_file: int
    rows_skipped: int
    rows_failed: int = 0
    rows_out_of_order: int
    first_problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    quarantine: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeTrace(TraceRead):
    """A file that was read into memory as a whole."""

    trace: Trace


def read_chunks(
    path: Path,
    reading: Reading | None = None,
    *,
    source: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    on_bad: Callable[[BadRow], None] | None = None,
) -> Generator[Trace, None, TraceRead]:
    """Read one trace file chunk by chunk; memory grows with the chunks, not with the file.

    Parameters
    ----------
    source
        Name of the file's source. If none is given: what the file states, or else `default_source(path)`.
    chunk_rows
        About how many rows of the file a chunk comes from.
    on_bad
        Gets every bad row.

    Yields
    ------
    Trace
        At least one good row, with the same `start` in every chunk; the sources of a chunk are the beginning of those
        of the next.

    Returns
    -------
    TraceRead
        The account, as the value of the generator.

    Raises
    ------
    InputError
        At the end if the file has bad rows (unless they are skipped) or no good one; as soon as it is found if the file
        cannot be read, is of no known format, or is further out of order than can be sorted on the way.
    """
    reading = reading or Reading()
    account = Account(path, reading, on_bad)
    order = Order()
    try:
        name, blocks = open_blocks(path, reading, source=source, chunk_rows=chunk_rows, tell=account.tell)
        unit = READERS[name].reader.unit
        ordered = (
            without_steps_back(blocks, unit)
            if reading.strict
            else in_order(blocks, order, window_rows=reading.window_rows)
        )
        for block, trace in on_clock(ordered):
            account.add(block)
            if len(trace):
                yield trace
    except TooLate as late:
        raise OutOfOrder(
            path,
            f"{path}: {unit} {late.number}: {late.late_s:.6g} s earlier than rows that came more than "
            f"{reading.window_rows} rows before it; sort the file first: tokenfleet trace convert {path} --out FILE",
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    return account.closed(name, order.steps_back)


def open_blocks(
    path: Path,
    reading: Reading,
    *,
    source: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[str, Iterator[Block]]:
    """The name of a file's format, and its blocks as they stand; `tell` gets what the user should know.

    Raises
    ------
    InputError
        If it is not a file that can be read, or of no known format; OSError where the system says so.
    """
    name = _format(path, reading)
    asked = Asked(
        source=source,
        columns=reading.columns,
        time_unit=reading.time_unit,
        block_tokens=reading.block_tokens,
        rows=chunk_rows,
        tell=tell,
    )
    return name, READERS[name].reader.blocks(path, asked)


def unreadable(path: Path, error: OSError) -> InputError:
    """What the user is told of an error of the system."""
    if isinstance(error, IsADirectoryError):
        return InputError(f"{path}: expected a trace file, found a directory")
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: expected a trace file, found nothing of this name")
    return InputError(f"{path}: cannot be read: {error.strerror}")


class Account:
    """Counts the rows of a file, good and bad.

    Parameters
    ----------
    on_bad
        Gets every bad row.
    """

    def __init__(self, path: Path, reading: Reading, on_bad: Callable[[BadRow], None] | None = None) -> None:
        self._path = path
        self._reading = reading
        self._on_bad = on_bad
        self._rows = self._good = self._skipped = self._failed = 0
        self._first_problems: list[str] = []
        self._notes: dict[str, None] = {}
        self._input_tokens = 0
        self._extras: dict[str, int] = {}

    def add(self, block: Block) -> None:
        """Count the rows of a block."""
        self._rows += block.rows
        self._good += len(block)
        self._skipped += len(block.bad)
        self._failed += block.failed
        for name, column in block.extras.items():
            self._extras[name] = self._extras.get(name, 0) + int(column.sum(dtype=np.int64))
        if block.extras:
            self._input_tokens += int(block.input_tokens.sum(dtype=np.int64))
        room = MAX_PROBLEMS - len(self._first_problems)
        self._first_problems += [f"{self._path}: {row.problem}" for row in block.bad[:room]]
        if self._on_bad is not None:
            for row in block.bad:
                self._on_bad(row)

    def tell(self, text: str) -> None:
        """Take in what the user should know about how the file was read."""
        self._notes[text] = None

    def _unused(self) -> Iterator[str]:
        """What is read and then not simulated."""
        if seen := self._extras.get("prefix_tokens"):
            yield (
                f"{seen / max(self._input_tokens, 1):.1%} of the input tokens were seen before; prefix caching is not "
                "simulated, so that a fleet is sized for more work than a cache would leave"
            )
        if images := self._extras.get("images"):
            yield f"{images:,} images are not simulated: requests are as long as their tokens say"

    def closed(self, name: str, steps_back: int) -> TraceRead:
        """What it came to, of a file of the format `name`.

        Raises
        ------
        InputError
            If there are bad rows that may not be skipped, or no good one.
        """
        path, rows, skipped = self._path, self._rows, self._skipped
        if not skipped and self._good == 0:
            raise InputError(f"{path}: expected at least one request, found none")
        if skipped and (self._good == 0 or self._reading.on_bad_row is OnBadRow.ERROR):
            nothing = [f"{path}: expected at least one good row, found none"] * (self._good == 0)
            more = skipped - len(self._first_problems)
            rest = [f"{path}: {more} more bad rows (of {rows} rows in the file)"] * bool(more)
            raise InputError([*nothing, *self._first_problems, *rest])
        return TraceRead(
            path=path,
            format=name,
            rows_in_file=rows,
            rows_skipped=skipped,
            rows_failed=self._failed,
            rows_out_of_order=steps_back,
            first_problems=tuple(self._first_problems),
            notes=(*self._notes, *self._unused()),
        )


def read_trace(path: Path, reading: Reading | None = None, *, source: str | None = None) -> WholeTrace:
    """Read one trace file into memory; see `read_chunks`.

    Raises
    ------
    InputError
        If the file cannot be read, is of no known format, has bad rows (unless they are skipped) or no good one.
    """
    reads: list[TraceRead] = []

    def read() -> Generator[Trace, None, None]:
        reads.append((yield from read_chunks(path, reading, source=source)))

    return WholeTrace(trace=concatenate(list(read())), **asdict(reads[0]))


def _format(path: Path, reading: Reading) -> str:
    """The name of the format, once the file is known to be one that can be read."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: expected a file that can be read twice, found a pipe or a device")
    first_bytes = head(path, HEAD_BYTES)
    if not first_bytes.strip(b"\r\n"):
        check_packed(path, HEAD_BYTES)
        raise InputError(f"{path}: line 1: expected a header, found an empty file")
    if reading.trace_format is not None:
        if reading.trace_format not in READERS:
            hint = closest(reading.trace_format, READERS)
            raise InputError(f"{path}: there is no trace format {reading.trace_format!r}; {hint}")
        if reading.columns and not READERS[reading.trace_format].mapped:
            raise InputError(f"{path}: --map is for tables: format {reading.trace_format!r} has columns of its own")
        return reading.trace_format
    for name, entry in READERS.items():
        if (entry.mapped or not reading.columns) and entry.reader.recognises(path, first_bytes):
            return name
    check_packed(path, HEAD_BYTES)
    if first_bytes.startswith(b"PK\x03\x04"):
        raise InputError(
            f"{path}: expected a trace file, found a ZIP archive or a spreadsheet: unpack it, or save it as CSV"
        )
    if reading.columns:
        return "jsonl" if first_bytes.startswith((b"{", b"[")) else "table"
    check_utf8(path, first_bytes, final=False)
    if b"\r" in first_bytes and b"\n" not in first_bytes:
        raise InputError(f"{path}: line 1: expected lines that end with LF or CR LF, found CR alone")
    from traces.io.jsonlines import refuse_what_lacks_paths
    from traces.io.table import refuse_what_lacks_columns

    if first_bytes.lstrip().startswith((b"{", b"[")):
        refuse_what_lacks_paths(first_bytes, path)
    refuse_what_lacks_columns(first_bytes, path)
    known = ", ".join(READERS)
    header = first_bytes.partition(b"\n")[0].decode(errors="replace").removesuffix("\r")
    found = header if len(header) <= 100 else header[:97] + "..."
    raise InputError(
        f"{path}: line 1: expected the beginning of a known trace format ({known}), found {found!r}; "
        "of another table say which column is what: --map arrival_s=COLUMN --map input_tokens=COLUMN "
        "--map output_tokens=COLUMN"
    )
