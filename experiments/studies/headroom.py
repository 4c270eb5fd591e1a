"""The headroom that percentiles need, by replicas and burstiness."""

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Duration, Numbers, PercentileOption, ScenarioOption, duration, numbers, trace_files
from experiments.replay.run import engine_notes, survey
from experiments.scenario.scenario import Scenario, load_scenario
from experiments.scenario.slo import parse_percentile, percentile_name
from experiments.show.parts import DASH, Line, LineChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, study
from experiments.studies.shared.view import cell, curve, estimate, mean_of, options_of, rows_where, values_of
from experiments.studies.tasks.headroom import CONVERSATION, STEP, configuration_of
from experiments.sweep.specification import Run
from experiments.verify.alternatives import LITTLE
from simulator.errors import InputError
from traces.synthetic.profile import load_profile

POISSON = "Poisson"
GUESSES = {"cap_staffing": "square-root staffing", "cap_sequence": "the sequence of the arrivals"}


@study(policies=None, seeds=3)
def command(
    asked: Asked,
    trace: Annotated[
        list[str] | None,
        typer.Option("--trace", help="A trace file, PATH or SOURCE=PATH, instead of the profile; repeatable."),
    ] = None,
    scenario: ScenarioOption = "azure-2023",
    model: Annotated[str, typer.Option(help="Model of the deployment.")] = "llama-3.1-8b",
    tier: Annotated[str, typer.Option(help="Its GPUs.")] = "h100-80-fp8",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs of one replica.")] = 1,
    replicas: Annotated[Numbers, numbers("--replicas", "Numbers of replicas, comma-separated.", least=1)] = Numbers(
        (1, 2, 4, 8, 16)
    ),
    arrivals: Annotated[
        list[str] | None,
        typer.Option("--arrivals", help="Only these: Poisson, or a source of the profile; repeatable."),
    ] = None,
    percentile: PercentileOption = "p95",
    duration: Annotated[Duration, duration("--duration", "Length of a draw of the arrivals.")] = Duration("20m"),
    draws: Annotated[int, typer.Option(min=1, help="Draws at each rate, all judged together.")] = 3,
) -> Design:
    """The largest load of a deployment at which percentiles hold, simulated, and what theory would have guessed.

    Example: `tokenfleet study headroom --trace conv.csv --trace code.csv --replicas 1,4,16 --out runs/headroom`
    """
    chosen = load_scenario(scenario)
    if not chosen.has_queues:
        raise InputError(f"scenario {chosen.name} has no queues: it takes `batching` capacity and discipline")
    for note in engine_notes(chosen):
        asked.terminal.warn(note)
    configuration_of(chosen, model, tier, tensor_parallel)
    if not all(size.is_integer() for size in map(float, replicas)):
        raise InputError(f"--replicas: expected whole numbers, found '{replicas}'")
    kinds = _kinds(chosen, trace or [], arrivals)
    common = {
        "scenario": scenario,
        "deployment": [model, tier, tensor_parallel],
        "level": parse_percentile(percentile),
        "duration_s": duration.seconds,
        "draws": draws,
    }
    runs = [
        Run(
            task="headroom",
            parameters={
                **common,
                "arrivals": kind,
                "replicas": int(size),
                "seed": seed,
                "about": {"setting": name},
            },
            label=f"{name}, {size:g} replicas, seed {seed}",
        )
        for name, kind in kinds.items()
        for size in replicas
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={**common, "arrivals": kinds, "replicas": [int(size) for size in replicas], "seeds": asked.seeds},
        files=[
            *([scenario] if scenario.endswith(".toml") else []),
            *(item.partition("=")[2] or item for item in trace or ()),
        ],
    )


def _kinds(scenario: Scenario, traces: list[str], asked: list[str] | None) -> dict[str, dict[str, Any]]:
    """What arrives, by name, as `experiments.studies.tasks.headroom` takes it."""
    kinds: dict[str, dict[str, Any]] = {POISSON: {"poisson": True}}
    for item in traces:
        found = survey(scenario, trace_files([item])).survey
        kinds["+".join(found.sources)] = {"trace": item}
    if not traces:
        profile = load_profile(scenario.file.synthetic.profile)
        kinds |= {source.name: {"source": source.name} for source in profile.sources}
    unknown = [name for name in asked or () if name not in kinds]
    if unknown:
        raise InputError(f"--arrivals: {unknown[0]!r} is none of {', '.join(kinds)}")
    return {name: kind for name, kind in kinds.items() if asked is None or name in asked}


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """The target utilisation by replicas and arrivals, and how far theory is off."""
    del timing
    options = options_of(marker)
    kinds = list(dict.fromkeys(frame["setting"]))
    deployment, level = options["deployment"], options["level"]
    assert isinstance(deployment, list)
    assert isinstance(level, float)
    model, tier, tensor_parallel = deployment
    return [
        Section(
            title="The target utilisation that is needed",
            text=[
                f"{model} on {tier} TP{tensor_parallel}: the largest load over its limit at which "
                f"{percentile_name(level)} TTFT, TPOT and E2E hold, to {STEP - 1:.0%}.",
                *(_words(rows_where(frame, setting=kind), kind) for kind in kinds),
                *_wrong_tool(frame, kinds),
                *_guessed(frame, kinds),
            ],
            tables=[_table(frame, kinds)],
            charts=[_needed(frame, kinds), _beside(frame, kinds)],
        )
    ]


def _words(own: pd.DataFrame, kind: str) -> str:
    sizes = values_of(own, "replicas")
    caps = {size: mean_of(rows_where(own, replicas=size), "cap") for size in sizes}
    told = ", ".join(f"{'nothing holds' if cap is None else f'{cap:.2f}'} with {size:g}" for size, cap in caps.items())
    first = own["status"].value_counts()
    return f"{kind}: {told} replicas; what breaks first: {first.index[0]}."


def _wrong_tool(frame: pd.DataFrame, kinds: list[str]) -> list[str]:
    """Where a fleet stands so empty that something else should be done."""
    found = []
    for kind in kinds:
        own = rows_where(frame, setting=kind)
        empty = [
            f"{size:g}"
            for size in values_of(own, "replicas")
            if (mean_of(rows_where(own, replicas=size), "cap") or 0.0) < LITTLE
        ]
        if empty:
            found.append(
                f"{kind}: the target utilisation needed is below {LITTLE:g} with {', '.join(empty)} replicas: static "
                "headroom is the wrong tool there (re-plan more often, refuse, or promise less: "
                "`tokenfleet plan --verify simulate` prices these)."
            )
    return found


def _guessed(frame: pd.DataFrame, kinds: list[str]) -> list[str]:
    """How far each guess is off, from the mean of one number of replicas to that of another."""
    found = []
    for name, words in GUESSES.items():
        ranges = []
        for kind in kinds:
            own = rows_where(frame, setting=kind)
            means = [estimate(_errors(rows_where(own, replicas=size), name)) for size in values_of(own, "replicas")]
            errors = [item.mean for item in means if item is not None]
            if errors:
                ranges.append(f"{min(errors):+.0%} to {max(errors):+.0%} under {kind}")
        if ranges:
            found.append(f"{words[0].upper()}{words[1:]} is off by {', '.join(ranges)}.")
    return found


def _errors(own: pd.DataFrame, name: str) -> list[float]:
    known = own[own["cap"].notna()]
    return ((known[name] - known["cap"]) / known["cap"]).tolist()


def _table(frame: pd.DataFrame, kinds: list[str]) -> Table:
    rows = []
    for kind in kinds:
        for size in values_of(rows_where(frame, setting=kind), "replicas"):
            own = rows_where(frame, setting=kind, replicas=size)
            rows.append(
                [
                    kind,
                    f"{size:g}",
                    cell(own, "rate_per_s", 1),
                    cell(own, "dispersion", 1),
                    cell(own, "cap"),
                    cell(own, "cap_staffing"),
                    _percent(_errors(own, "cap_staffing")),
                    cell(own, "cap_sequence"),
                    _percent(_errors(own, "cap_sequence")),
                ]
            )
    return Table(
        title="The largest load over its limit at which the percentiles hold",
        columns=(
            "arrivals",
            "replicas",
            "rate [1/s]",
            "dispersion",
            "needed",
            "staffing",
            "off [%]",
            "sequence",
            "off [%]",
        ),
        rows=rows,
        labels=1,
        note="Dispersion: variance over mean of the arrivals in 10 s, 1 where they are Poisson. Needed: the target "
        "utilisation at which the percentiles just hold; beside it what theory suggests at that rate, from square-root "
        f"staffing and from the sequence of the arrivals. {POISSON}: every request is as long as those of "
        f"{CONVERSATION!r} are on average.",
    )


def _percent(errors: list[float]) -> str:
    found = estimate(errors)
    return DASH if found is None else f"{100 * found.mean:+.0f}"


def _needed(frame: pd.DataFrame, kinds: list[str]) -> LineChart:
    sizes = values_of(frame, "replicas")
    return LineChart(
        key="headroom-needed",
        title="The target utilisation that is needed, by the number of replicas",
        x_label="replicas",
        y_label="load over its limit",
        lines=[curve(rows_where(frame, setting=kind), kind, "replicas", "cap") for kind in kinds],
        log_x=True,
        from_zero=True,
        x_ticks={size: f"{size:g}" for size in sizes},
    )


def _beside(frame: pd.DataFrame, kinds: list[str]) -> LineChart:
    """Guess over need, so that what is guessed too high lies above the diagonal."""
    lines: list[Line] = []
    most = 0.0
    for kind in kinds:
        own = rows_where(frame, setting=kind)
        own = own[own["cap"].notna()]
        points = own.groupby("replicas")[["cap", *GUESSES]].mean().sort_values("cap")
        if points.empty:
            continue
        most = max(most, float(points.to_numpy().max()))
        lines += [
            Line(
                name=f"{kind}, {theory}",
                x=points["cap"].tolist(),
                y=points[name].tolist(),
                group=kind,
                dashed=name == "cap_staffing",
                labels=[f"{size:g}" for size in points.index] if name == "cap_sequence" else None,
            )
            for name, theory in GUESSES.items()
        ]
    lines.append(Line(name="as needed", x=[0.0, most], y=[0.0, most], reference=True, markers=False))
    return LineChart(
        key="headroom-guessed",
        title="What theory suggests beside what is needed, by the number of replicas",
        x_label="target utilisation needed",
        y_label="target utilisation suggested",
        lines=lines,
        from_zero=True,
    )
