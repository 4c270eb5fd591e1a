"""The options of the command line, each defined once, and what the user's text becomes.

An option that several commands have is a type here (`SeedOption`); a text that has to be parsed becomes a value while
the command line is read (`duration`, `numbers`, `factors`). A group of options that make one thing is a function here,
and `takes` gives all of them to a command: see `trace_reading`. Nothing heavy is imported: `tokenfleet --help` reads
this module.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.models import OptionInfo

from simulator.errors import InputError
from traces.io.on_bad_row import OnBadRow, TimeUnit

if TYPE_CHECKING:
    from simulator.planning.policy import Policy
    from traces.formats.registry import Reading
    from traces.source import TraceFiles

# -- options that several commands have -----------------------------------------------------------------------------

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes on standard error; errors stay.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="One seed, one result.")]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Draws: seeds 0, 1, ...")]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", help="Policy by name (`tokenfleet list policies`) or path/to/file.py:Class; repeatable."),
]
ProblemOption = Annotated[
    Path | None, typer.Option("--problem", help="A tokenfleet-problem/1 file instead of a scenario, gzipped or not.")
]
ScenarioOption = Annotated[
    str, typer.Option("--scenario", help="Scenario by name (`tokenfleet list scenarios`) or path to a .toml file.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for results and figures, made whole or not at all.")
]
SweepOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for the results; a sweep that was broken off goes on there. None: nothing kept."
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Skip runs that are finished in --out, or start afresh.")
]
JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes here; default: one per core.")]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", help="Run on a cluster that is there: dask://HOST:PORT or ray://HOST:PORT.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")]
EngineOption = Annotated[
    str, typer.Option("--engine", help="compiled or reference: the same results, the second far slower.")
]
DelayModelOption = Annotated[
    str | None, typer.Option("--delay-model", help="Delay model, such as roofline; default: the scenario's.")
]
FunctionOption = Annotated[
    str | None, typer.Option(help="Your own function, path/to/file.py:function (docs/extending.md).")
]
CatalogOption = Annotated[
    Path | None, typer.Option("--catalog", help="Your own GPUs, models, calibrations and engines.")
]
PercentileOption = Annotated[
    str, typer.Option("--percentile", help="At which the limits of types count that state no percentile_slos.")
]
RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Of a replay, a stress sweep or a study.")]
TracesArgument = Annotated[list[str], typer.Argument(metavar="TRACE...", help="Trace files, PATH or SOURCE=PATH.")]
OnBadRowOption = Annotated[
    OnBadRow,
    typer.Option(help="A row that cannot be read is an error, is skipped, or is skipped and written to a file."),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="Which column is what: arrival_s=NAME, source=, input_tokens=, output_tokens=; of JSON usage.a or a[0].b.",
    ),
]

# -- text that becomes a value ----------------------------------------------------------------------------------------

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[a-z]*)")


class Duration:
    """A length of time above zero: `90s`, `5m`, `1h`, `24h`, `1d`; a bare number is seconds.

    Attributes
    ----------
    text
        As it was written.

    Raises
    ------
    InputError
        If the text is none.
    """

    def __init__(self, text: str, option: str = "duration") -> None:
        match = _DURATION.fullmatch(text.strip().lower())
        unit = (match["unit"] or "s") if match else ""
        if match is None or unit not in _SECONDS or not 0 < float(match["number"]) < math.inf:
            raise InputError(f"{option}: {text!r} is no duration above zero; expected for instance 30s, 5m, 1h or 1d")
        self.text = text
        self.seconds = float(match["number"]) * _SECONDS[unit]

    def __str__(self) -> str:
        return self.text


class Numbers(tuple[float, ...]):
    """Numbers that are written with commas between them."""

    def __str__(self) -> str:
        return ",".join(f"{number:g}" for number in self)


def parse_numbers(text: str, option: str, *, least: float = 0.0) -> Numbers:
    """Comma-separated numbers from `least` on, rising and each once.

    Raises
    ------
    InputError
        Naming the first that is none.
    """
    found = _floats(text, lambda number: number >= least, option, f"number from {least:g} on", "1,2.5")
    return Numbers(sorted(set(found)))


def parse_factors(text: str, option: str = "--factors") -> Numbers:
    """Comma-separated factors above zero, in the order given.

    Raises
    ------
    InputError
        Naming the first that is none.
    """
    return Numbers(_floats(text, lambda number: number > 0, option, "factor above zero", "1.0,1.1,1.5"))


def _floats(text: str, fits: Callable[[float], bool], option: str, what: str, example: str) -> Iterable[float]:
    for item in text.split(","):
        try:
            number = float(item)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and fits(number)):
            raise InputError(f"{option}: {item.strip()!r} is no {what}; expected for instance {example}")
        yield number


def _parsed(option: str, parse: Callable[[str], Any], metavar: str, about: str) -> OptionInfo:
    """An option whose text is parsed; what is parsed already, a default, stays."""

    def parser(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    info: OptionInfo = typer.Option(option, parser=parser, metavar=metavar, help=about)
    return info


def duration(option: str, about: str) -> OptionInfo:
    """An option that takes a `Duration`."""
    return _parsed(option, lambda text: Duration(text, option), "DURATION", about)


def numbers(option: str, about: str, *, least: float = 0.0) -> OptionInfo:
    """An option that takes `Numbers`, as `parse_numbers` reads them."""
    return _parsed(option, lambda text: parse_numbers(text, option, least=least), "NUMBERS", about)


def factors(option: str, about: str) -> OptionInfo:
    """An option that takes `Numbers`, as `parse_factors` reads them."""
    return _parsed(option, lambda text: parse_factors(text, option), "NUMBERS", about)


# -- options that make one thing together -----------------------------------------------------------------------------


def takes(**groups: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command the options of functions: its parameter `reading` is what `takes(reading=trace_reading)` makes.

    The parameters of the function stand in the place of the one that it makes.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            group = groups.get(parameter.name)
            parameters += [parameter] if group is None else inspect.signature(group).parameters.values()

        def run(**given: Any) -> None:
            made = {
                name: make(**{key: given.pop(key) for key in inspect.signature(make).parameters})
                for name, make in groups.items()
            }
            command(**given, **made)

        return dressed(run, command, parameters)

    return decorate


def dressed(
    run: Callable[..., None], command: Callable[..., Any], parameters: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """`run` with the name and the docstring of `command`, and these parameters for Typer to make options of."""
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    update_wrapper(run, command)
    vars(run)["__signature__"] = inspect.Signature(own)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    return run


def trace_reading(
    trace_format: Annotated[
        str | None, typer.Option("--format", help="Trace format (`tokenfleet list traces`); default: by the content.")
    ] = None,
    columns: MapOption = None,
    on_bad_row: OnBadRowOption = OnBadRow.ERROR,
    quarantine: Annotated[
        Path | None, typer.Option(help="Folder of those files, NAME.bad-rows.csv; default: the current one.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A row that goes back in time is a bad row: none is sorted.")
    ] = False,
    time_unit: Annotated[
        TimeUnit | None, typer.Option(help="Unit of times that are numbers, whatever the file says.")
    ] = None,
    block_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a block that hash_ids names, whatever the format says.")
    ] = None,
) -> "Reading":
    """How trace files are read; `columns` are `HOLDS=NAME`, as in `arrival_s=When`.

    Raises
    ------
    InputError
        If an option makes no sense.
    """
    from traces.formats.registry import Reading
    from traces.io.columns import EXTRAS, ROLES

    known = (*ROLES, *EXTRAS)
    named: dict[str, str] = {}
    for item in columns or ():
        role, separator, name = item.partition("=")
        if not (separator and name and role in known):
            raise InputError(f"--map: expected HOLDS=COLUMN, HOLDS one of {', '.join(known)}; found {item!r}")
        if role in named:
            raise InputError(f"--map: {role} is given twice")
        named[role] = name
    if quarantine is not None and on_bad_row is not OnBadRow.QUARANTINE:
        raise InputError("--quarantine needs --on-bad-row quarantine")
    return Reading(
        trace_format=trace_format,
        columns=named,
        time_unit=None if time_unit is None else str(time_unit),
        block_tokens=block_tokens,
        on_bad_row=on_bad_row,
        strict=strict,
        quarantine=quarantine or Path(),
    )


# -- what names become ------------------------------------------------------------------------------------------------


def trace_files(arguments: Sequence[str], reading: "Reading | None" = None) -> "TraceFiles":
    """Trace files, each given as `PATH` or as `SOURCE=PATH`."""
    from traces.formats.registry import Reading
    from traces.source import TraceFiles

    files: list[tuple[Path, str | None]] = []
    for argument in arguments:
        source, separator, path = argument.partition("=")
        if not separator or "/" in source or Path(argument).exists():
            source, path = "", argument
        files.append((Path(path), source or None))
    return TraceFiles(files, reading or Reading())


def make_policies(names: Iterable[str]) -> "list[Policy]":
    """Policies by their names, each once.

    Raises
    ------
    InputError
        With all that are unknown.
    """
    from policies.registry import make_policy

    policies: list[Policy] = []
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            policies.append(make_policy(name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return policies
