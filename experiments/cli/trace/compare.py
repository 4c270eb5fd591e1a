"""`tokenfleet trace compare`: its options, its tables and its verdict; docs/traces.md gives reasons for the bounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from experiments.cli.inputs import check_figure_path
from experiments.cli.trace.describe import Described, FigureOption, describe, new_table, number
from experiments.options import JsonOption, OnBadRowOption, trace_files
from experiments.show.progress import Terminal
from traces.formats.registry import Reading
from traces.io.on_bad_row import OnBadRow
from traces.statistics.distances import Blocks, Comparison, Kind, Status, compare
from traces.statistics.totals import Totals

VERDICTS = {Status.ALIKE: "alike", Status.DIFFERS: "differs", Status.CHANCE: "chance?", Status.UNKNOWN: "–"}

TraceArgument = Annotated[
    str, typer.Argument(help="Trace file, PATH or SOURCE=PATH; several of one trace with commas between.")
]


def command(
    context: typer.Context,
    first: TraceArgument,
    second: TraceArgument,
    on_bad_row: OnBadRowOption = OnBadRow.ERROR,
    figure: FigureOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if the traces differ.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How far a trace is from another, for instance a synthetic one (second) from the real one (first).

    Example: `tokenfleet trace compare conv.csv synthetic.parquet --strict`
    """
    terminal: Terminal = context.obj
    if figure is not None:
        check_figure_path(figure)
    reading = Reading(on_bad_row=on_bad_row)
    paths = [split_paths(text) for text in (first, second)]
    described = [
        describe(terminal, own, reading, f"reading {text}") for own, text in zip(paths, (first, second), strict=True)
    ]
    blocks = [_blocks(terminal, one, own, reading) for one, own in zip(described, paths, strict=True)]
    groups = {
        name: compare(
            _group(described[0], name), _group(described[1], name), (blocks[0].totals(name), blocks[1].totals(name))
        )
        for name in (None, *common_sources(*described))
    }
    named = {name or "all": comparisons for name, comparisons in groups.items()}
    only = only_in_one(*described)
    differs = any(only.values()) or any(c.status is Status.DIFFERS for found in named.values() for c in found)
    if figure is not None:
        labels = [f"{text}: {_names(own)}" for text, own in zip(("first", "second"), paths, strict=True)]
        drawn = {label: replace(one.whole, first_s=0.0) for label, one in zip(labels, described, strict=True)}
        from experiments.cli.trace.describe_figure import draw_description  # here: Matplotlib takes long to load

        draw_description(drawn, title="Two traces", path=figure)
    if as_json:
        terminal.print_json(_result(described, paths, named, only, differs))
    else:
        for text, own, one in zip(("first", "second"), paths, described, strict=True):
            terminal.say(f"{text}: {_names(own)}, {one.whole.rows:,} requests in {one.whole.span_s / 60:,.1f} min")
        for name, comparisons in named.items():
            terminal.out.print(comparison_table(name, comparisons))
        for line in verdict_lines(named, only):
            terminal.say(line)
        if figure is not None:
            terminal.say(f"picture in {figure}")
    if strict and differs:
        raise typer.Exit(1)


def split_paths(text: str) -> list[str]:
    """The files of one trace: what is between commas, unless there is a file of the whole name."""
    return [text] if Path(text).exists() else [part for part in text.split(",") if part]


def _names(paths: Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in paths)


def _blocks(terminal: Terminal, described: Described, paths: Sequence[str], reading: Reading) -> Blocks:
    """Go through a trace once more, block by block in time."""
    blocks = Blocks(described.whole)
    with terminal.progress_bars() as bars:
        step = bars.start(f"reading {_names(paths)} once more, in blocks")
        trace_files(paths, reading).survey(blocks.add)
        step(1.0)
    return blocks


def _group(described: Described, source: str | None) -> Totals:
    return described.whole if source is None else described.sources[source]


def common_sources(first: Described, second: Described) -> list[str]:
    """Sources that are compared beside the whole: those of both, unless they are all that there is."""
    names = [name for name in first.sources if name in second.sources]
    return names if max(len(first.sources), len(second.sources)) > 1 else []


def only_in_one(first: Described, second: Described) -> dict[str, list[str]]:
    """Sources that one of the traces lacks. Traces of one source each are compared whatever its name is."""
    if max(len(first.sources), len(second.sources)) == 1:
        return {"only_first": [], "only_second": []}
    return {
        "only_first": [name for name in first.sources if name not in second.sources],
        "only_second": [name for name in second.sources if name not in first.sources],
    }


def comparison_table(title: str, comparisons: Sequence[Comparison]) -> Table:
    """A row per measure that is known."""
    table = new_table()
    table.add_column(Text(title), no_wrap=True)
    for heading in ("first", "second", "apart", "bound", "by chance", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    known = [item for item in comparisons if item.status is not Status.UNKNOWN]
    for item, following in zip_longest(known, known[1:]):
        table.add_row(
            Text(item.measure.label),
            number(None if math.isnan(item.first) else item.first),
            number(None if math.isnan(item.second) else item.second),
            apart(item),
            allowed(item, item.measure.bound),
            "–" if math.isnan(item.chance) else allowed(item, item.chance),
            VERDICTS[item.status],
            end_section=following is not None and not following.measure.label.startswith(" "),
        )
    return table


def apart(item: Comparison) -> str:
    """How far the traces are apart, as a reader would say it."""
    if not math.isfinite(item.value):
        return "∞"
    match item.measure.kind:
        case Kind.RATIO:
            return f"×{item.value:.3g}"
        case Kind.DIFFERENCE:
            return f"{item.value:+.3f}"
        case _:
            return f"{item.value:.3f}"


def allowed(item: Comparison, limit: float) -> str:
    """A bound, or what chance gives, in the words of the measure."""
    match item.measure.kind:
        case Kind.RATIO:
            return f"×÷{limit:.3g}"
        case Kind.CORRELATION:
            return f">{limit:.2f}"
        case _:
            return f"<{limit:.3f}"


def verdict_lines(groups: Mapping[str, Sequence[Comparison]], only: Mapping[str, Sequence[str]]) -> list[str]:
    """The outcome in words: the verdict first, then what differs."""
    every = [(group, item) for group, found in groups.items() for item in found if item.status is not Status.UNKNOWN]
    differ = [(group, item) for group, item in every if item.status is Status.DIFFERS]
    unsure = [item for _, item in every if item.status is Status.CHANCE]
    lines = []
    for where, names in only.items():
        lines += [f"  source {name} is in the {where.removeprefix('only_')} trace only" for name in names]
    for group, item in differ:
        prefix = "" if len(groups) == 1 else f"{group}: "
        chance = "" if math.isnan(item.chance) else f", by chance {allowed(item, item.chance)}"
        bound = f"bound {allowed(item, item.measure.bound)}{chance}"
        lines.append(f"  {prefix}{in_words(item)} {apart(item)} ({bound})")
    if lines:
        count = f"{len(differ)} of {len(every)} measures are out of bounds by more than chance gives"
        head = f"the traces differ: {count}"
    elif not every:
        head = "nothing could be compared: too few requests"
    else:
        head = f"the traces are alike: {len(every) - len(unsure)} of {len(every)} measures are within their bounds"
    if unsure:
        lines.append(
            f"  {len(unsure)} out of bounds, but no further than chance may bring them: longer traces would tell"
        )
    return [head, *lines]


def in_words(item: Comparison) -> str:
    """`output_p99` -> `output p99`."""
    return item.name.replace("_", " ")


def _result(
    described: Sequence[Described],
    paths: Sequence[Sequence[str]],
    groups: Mapping[str, Sequence[Comparison]],
    only: Mapping[str, Sequence[str]],
    differs: bool,
) -> dict[str, Any]:
    traces = {
        text: {
            "files": list(own),
            "format": one.formats,
            "sha256": one.survey.sha256,
            "rows": one.whole.rows,
            "span_s": one.whole.span_s,
        }
        for text, own, one in zip(("first", "second"), paths, described, strict=True)
    }
    return {
        **traces,
        "alike": not differs,
        "differs": [
            f"{group}.{c.name}" for group, found in groups.items() for c in found if c.status is Status.DIFFERS
        ],
        **only,
        "groups": {group: {item.name: item.to_dict() for item in found} for group, found in groups.items()},
    }
