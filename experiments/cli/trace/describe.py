"""`tokenfleet trace describe`: its options, its tables and its picture; docs/traces.md defines the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.cli.inputs import check_figure_path, survey_input
from experiments.options import JsonOption, TracesArgument, takes, trace_files, trace_reading
from experiments.show.progress import Terminal
from traces.formats.registry import Reading
from traces.source import Survey
from traces.statistics.describe import TraceStatistics
from traces.statistics.figures import LEVELS, figures
from traces.statistics.totals import GAP_PRECISION, Totals
from traces.warnings import file_warnings, trace_warnings

SHOWN_SOURCES = 5  # beside all requests, in 80 columns
SHOWN_TOKENS = 3  # groups in one table of tokens

ARRIVALS = (  # label, where the figure is, factor, whether a section ends
    ("requests", ("rows",), 1, False),
    ("span [min]", ("span_s",), 1 / 60, True),
    ("rate [1/min]", ("rate_per_min",), 1, False),
    ("  peak minute", ("peak_per_min",), 1, False),
    ("  idle minutes", ("idle_minutes",), 1, True),
    ("gap mean [ms]", ("gap_s", "mean"), 1000, False),
    ("  CV", ("gap_cv",), 1, False),
    ("  p50 [ms]", ("gap_s", "p50"), 1000, False),
    ("  p99 [ms]", ("gap_s", "p99"), 1000, False),
    ("  longest [s]", ("gap_s", "max"), 1, True),
    ("dispersion 1 s", ("dispersion", "1s"), 1, False),
    ("  10 s", ("dispersion", "10s"), 1, False),
    ("  60 s", ("dispersion", "60s"), 1, False),
    ("  600 s", ("dispersion", "600s"), 1, True),
    ("Spearman in/out", ("spearman",), 1, False),
)
TOKENS = ("mean", "std", "min", *LEVELS, "max", "zeros")

FigureOption = Annotated[Path | None, typer.Option("--figure", help="Draw the picture into this file, .png or .svg.")]


@dataclass(frozen=True, slots=True)
class Described:
    """What going through a trace once tells: all requests, and each source."""

    survey: Survey
    whole: Totals
    sources: Mapping[str, Totals]

    @property
    def formats(self) -> str:
        return ", ".join(dict.fromkeys(read.format for read in self.survey.reads))

    @property
    def groups(self) -> dict[str, Totals]:
        """All requests and each source; all alone if there is but one source."""
        return {"all": self.whole, **(self.sources if len(self.sources) > 1 else {})}

    def to_dict(self) -> dict[str, Any]:
        reads, start = self.survey.reads, self.survey.start
        return {
            "format": self.formats,
            "rows": self.whole.rows,
            "rows_skipped": sum(read.rows_skipped for read in reads),
            "rows_out_of_order": sum(read.rows_out_of_order for read in reads),
            "start": None if start is None else start.isoformat(),
            **figures(self.whole),
            "oddities": [item.to_dict() for item in [*file_warnings(reads), *trace_warnings(self.whole)]],
            "sources": {
                name: {**figures(totals), "oddities": [item.to_dict() for item in trace_warnings(totals)]}
                for name, totals in self.sources.items()
            },
        }


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    trace: TracesArgument,
    *,
    reading: Reading,
    figure: FigureOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a trace is like: rate, burstiness, tokens, and what is odd about it. Several files are put on one clock.

    Example: `tokenfleet trace describe conv.csv code.csv --figure trace.png`
    """
    terminal: Terminal = context.obj
    if figure is not None:
        check_figure_path(figure)
    described = describe(terminal, trace, reading)
    title = ", ".join(Path(name).name for name in trace)
    if figure is not None:
        from experiments.cli.trace.describe_figure import draw_description  # here: Matplotlib takes long to load

        draw_description(described.groups, title=title, path=figure)
    result = described.to_dict()
    if as_json:
        terminal.print_json(result)
        return
    span = f"{result['rows']:,} requests in {result['span_s'] / 60:,.1f} min"
    begin = "" if result["start"] is None else f" from {result['start']}"
    terminal.say(f"{title} ({result['format']}): {span}{begin}")
    shown = shown_groups(result)
    terminal.out.print(arrivals_table(shown))
    names = list(shown)
    for at in range(0, len(names), SHOWN_TOKENS):
        terminal.out.print(tokens_table({name: shown[name] for name in names[at : at + SHOWN_TOKENS]}))
    for line in [*extra_lines(shown), *oddity_lines(result), *notes(result)]:
        terminal.say(line)
    if figure is not None:
        terminal.say(f"picture in {figure}")


def describe(terminal: Terminal, paths: Sequence[str], reading: Reading, name: str = "reading the trace") -> Described:
    """Go through the files once."""
    statistics = TraceStatistics()
    survey = survey_input(terminal, trace_files(paths, reading), statistics.add, name)
    return Described(survey, statistics.totals(), statistics.by_source())


def shown_groups(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The columns of the tables: all requests, and the sources with the most of them."""
    sources = result["sources"]
    if len(sources) < 2:
        return {"all": result}
    most = sorted(sources, key=lambda name: -sources[name]["rows"])[:SHOWN_SOURCES]
    return {"all": result, **{name: sources[name] for name in sources if name in most}}


def number(value: float | None, factor: float = 1) -> str:
    """Four digits, of large numbers the whole part."""
    if value is None:
        return "–"
    scaled = value * factor
    return f"{scaled:,.0f}" if abs(scaled) >= 1000 or scaled == int(scaled) else f"{scaled:.4g}"


def new_table() -> Table:
    """A table that fits into 80 columns."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)


def arrivals_table(groups: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures of arrivals, a column per group."""
    table = new_table()
    table.add_column("arrivals", no_wrap=True)
    for name in groups:
        table.add_column(escape(name), justify="right", overflow="fold")
    for label, path, factor, section in ARRIVALS:
        cells = []
        for result in groups.values():
            value: Any = result
            for key in path:
                value = value[key]
            cells.append(number(value, factor))
        table.add_row(Text(label), *cells, end_section=section)  # text: a unit like [s] is no markup
    return table


def tokens_table(groups: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures of tokens, two columns per group."""
    table = new_table()
    table.add_column("tokens", no_wrap=True)
    for name in groups:
        for which in ("in", "out"):
            table.add_column(f"{escape(name)} {which}", justify="right", overflow="fold")
    for key in TOKENS:
        cells = [number(result[f"{which}_tokens"][key]) for result in groups.values() for which in ("input", "output")]
        table.add_row(key, *cells, end_section=key in ("std", "max"))
    return table


def extra_lines(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Further columns in words."""
    lines = []
    for group, result in groups.items():
        prefix = "" if len(groups) == 1 else f"{group}: "
        for name, extra in result["extras"].items():
            seen = extra.get("share_of_input_tokens")
            more = "" if seen is None else f"; {seen:.1%} of the input tokens were seen before"
            share = f"{extra['share_of_rows']:.1%} of the requests have {name}"
            lines.append(f"{prefix}{share}: {number(extra['mean'])} per request, {extra['max']:,} at most{more}")
    return lines


def oddity_lines(result: Mapping[str, Any]) -> list[str]:
    """What is odd, a sentence each: of several sources by source, without saying it again for all requests."""
    told = result["oddities"]
    lines = []
    sources = result["sources"]
    if len(sources) > 1:
        for name, source in sources.items():
            lines += [f"{name}: {item['text']}" for item in source["oddities"]]
        of_sources = {item["kind"] for source in sources.values() for item in source["oddities"]}
        told = [item for item in told if item["kind"] not in of_sources]
    return [f"odd: {line}" for line in [*(item["text"] for item in told), *lines]] or ["nothing odd"]


def notes(result: Mapping[str, Any]) -> list[str]:
    """How exact the figures are."""
    lines = []
    if result["gap_s"]["mean"] is not None:
        lines.append(f"quantiles of gaps: to within {GAP_PRECISION:.2%}")
    sampled = {group["rows"]: group["spearman_rows"] for group in (result, *result["sources"].values())}
    if any(used < rows for rows, used in sampled.items()):
        lines.append(f"Spearman: of {result['spearman_rows']:,} evenly spaced rows")
    hidden = len(result["sources"]) - SHOWN_SOURCES
    if hidden > 0:
        lines.append(f"{hidden} smaller source{'s' * (hidden > 1)} not shown: --json has all")
    return lines
