"""`tokenfleet plan`: plan a problem file or a scenario, and verify the plan by simulation if that is asked for."""

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from experiments import api
from experiments.cli.inputs import account_lines
from experiments.options import (
    DelayModelOption,
    JsonOption,
    PercentileOption,
    SeedOption,
    make_policies,
    takes,
    trace_files,
    trace_reading,
)
from experiments.replay.run import survey
from experiments.report.replay_tables import plan_lines, plan_table
from experiments.report.verified import verdict_tables, verdict_words
from experiments.scenario.notes import scenario_notes
from experiments.scenario.scenario import Scenario, load_scenario, slowed, with_delay_model
from experiments.scenario.slo import parse_percentile
from experiments.show.progress import Terminal
from experiments.show.terminal import print_table, rich_table
from experiments.verify.guess import Guess
from experiments.verify.search import VerifyOptions
from experiments.verify.verdict import Verdict
from experiments.verify.verified import refuse_unverifiable
from policies.checking.certificate import write_certificate
from policies.checking.proof import Prover
from simulator.errors import InputError, RunError
from simulator.planning.files import plan_to_dict, read_problem, write_plan
from simulator.planning.policy import Policy, StoppingRule
from traces.formats.registry import Reading

DEFAULT_POLICY, DEFAULT_VERIFIED = "agh", "agh+"


class Verify(StrEnum):
    """How a plan is verified."""

    SIMULATE = "simulate"


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    trace: Annotated[
        list[str] | None,
        typer.Argument(help="Trace files whose demand is planned for, PATH or SOURCE=PATH; none: the scenario's."),
    ] = None,
    problem: Annotated[
        Path | None, typer.Option("--problem", help="A tokenfleet-problem/1 file, gzipped or not.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Plan this scenario instead, by name or path to a .toml file.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help=f"Policy by name or path/to/file.py:Class; default: {DEFAULT_POLICY}, verified {DEFAULT_VERIFIED}.",
        ),
    ] = None,
    time_limit: Annotated[float | None, typer.Option(min=0.001, help="Seconds; the best plan so far is kept.")] = None,
    effort: Annotated[
        int | None,
        typer.Option(min=1, help="How many fleets agh+ may route, or how many cheaper ones --verify simulates."),
    ] = None,
    seed: SeedOption = 0,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write the plan (tokenfleet-plan/1) here.")] = None,
    certificate_file: Annotated[
        Path | None,
        typer.Option("--certificate", help="Write the proof of the bound (tokenfleet-certificate/1) here; .gz to zip."),
    ] = None,
    how: Annotated[
        Verify | None,
        typer.Option(
            "--verify", help="simulate: the cheapest plan whose simulated percentiles hold (docs/headroom.md)."
        ),
    ] = None,
    percentile: PercentileOption = "p95",
    guard: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Share of each limit that the simulations have to keep.")
    ] = 0.98,
    guess: Annotated[
        Guess, typer.Option(help="First headroom: square-root staffing, or the real sequence.")
    ] = Guess.AUTO,
    draws: Annotated[
        int, typer.Option(min=2, help="Fresh draws for a plan that fails none of them; 94 stand for 95 % of all.")
    ] = 94,
    hold_out: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Last share of the trace that nothing is learned from.")
    ] = 0.2,
    delay_factor: Annotated[
        float, typer.Option(min=0.1, max=10, help="Verify in a world in which everything takes so many times as long.")
    ] = 1.0,
    delay_model: DelayModelOption = None,
    *,
    reading: Reading,
    as_json: JsonOption = False,
) -> None:
    """Plan one problem, or a scenario for the demand of a trace, with one policy; verify it if that is asked for.

    Example: `tokenfleet plan --problem 6x6x10-seed0.json.gz --policy exact --out plan.json --certificate proof.json.gz`

    Example: `tokenfleet plan AzureLLMInferenceTrace_conv.csv --scenario azure-2023 --verify simulate --out plan.json`
    """
    terminal: Terminal = context.obj
    if problem is not None and (scenario is not None or trace or how is not None):
        raise InputError("--problem states all there is to plan: it excludes a trace, --scenario and --verify")
    if problem is None and scenario is None and not trace:
        raise InputError("nothing to plan: give --problem FILE, or a trace, --scenario NAME or both")
    name = policy or (DEFAULT_POLICY if how is None else DEFAULT_VERIFIED)
    (chosen,) = make_policies([name])
    if certificate_file is not None and (how is not None or not isinstance(chosen, Prover)):
        what = "a verified plan" if how is not None else f"policy {chosen.name!r}"
        raise InputError(f"--certificate: {what} proves no bound that can be checked; exact does")
    if out_file is not None and not out_file.parent.is_dir():
        raise InputError(f"--out: {out_file}: there is no folder {out_file.parent}")
    if how is None and delay_factor != 1:
        raise InputError("--delay-factor is of --verify")
    if how is not None:
        found = slowed(_scenario(terminal, scenario, delay_model), delay_factor)
        try:
            level = parse_percentile(percentile)
        except InputError as error:
            raise InputError(f"--percentile: {error}") from None
        options = VerifyOptions(level=level, guard=guard, guess=guess, draws=draws, seed=seed)
        if effort is not None:
            options = replace(options, effort=effort)
        _verified(terminal, found, trace, reading, chosen, options, hold_out, out_file, as_json)
        return
    if problem is not None:
        data = read_problem(problem)
    else:
        found = _scenario(terminal, scenario, delay_model)
        data = api.problem_of(found, _arriving(terminal, found, trace, reading))
    with terminal.progress_bars() as bars:
        stop = StoppingRule(time_limit_s=time_limit, effort=effort, report=bars.search(chosen.name))
        planned = api.plan(data, chosen, stop=stop, seed=seed)
    made, took = planned.plan, planned.proof.effort if planned.proof else None
    if certificate_file is not None and planned.proof is not None:
        write_certificate(certificate_file, planned.proof.certificate)
    if out_file is not None:
        write_plan(out_file, made)
    if as_json:
        terminal.print_json(plan_to_dict(made) if took is None else {**plan_to_dict(made), "effort": asdict(took)})
        return
    print_table(terminal.out, plan_table(made, planned.report.cost_parts_usd))
    for line in plan_lines(made, took, data.period_h):
        terminal.say(line)
    if certificate_file is not None:
        terminal.say(f"proof of the bound: tokenfleet check --problem {problem} --certificate {certificate_file}")


def _scenario(terminal: Terminal, name: str | None, delay_model: str | None) -> Scenario:
    scenario = load_scenario(name or "azure-2023")
    if delay_model is not None:
        scenario = with_delay_model(scenario, delay_model)
    for note in scenario_notes(scenario):
        terminal.note(note)
    return scenario


def _arriving(terminal: Terminal, scenario: Scenario, trace: list[str] | None, reading: Reading) -> api.Arriving | None:
    """The trace, with what its files were read as; None: the scenario's own arrivals."""
    if not trace:
        return None
    arriving = survey(scenario, trace_files(trace, reading))
    for read in arriving.survey.reads:
        for line in account_lines(read):
            terminal.warn(line)
    return arriving


def _verified(
    terminal: Terminal,
    scenario: Scenario,
    trace: list[str] | None,
    reading: Reading,
    policy: Policy,
    options: VerifyOptions,
    hold_out: float,
    out_file: Path | None,
    as_json: bool,
) -> None:
    refuse_unverifiable(scenario)
    arriving = _arriving(terminal, scenario, trace, reading)
    found = api.verify(scenario, policy, arriving, hold_out=hold_out, options=options, tell=terminal.note)
    verdict, plan = found.verdict, found.plan
    if plan is None or found.report is None:
        if as_json:
            terminal.print_json({"verified": verdict.as_dict()})
        else:
            _explain(terminal, verdict)
        raise RunError(verdict.failure)
    if out_file is not None:
        write_plan(out_file, plan)
    if as_json:
        terminal.print_json({**plan_to_dict(plan), "verified": verdict.as_dict()})
        return
    print_table(terminal.out, plan_table(plan, found.report.cost_parts_usd))
    _explain(terminal, verdict)
    terminal.say(f"{verdict.tried} plans tried in {verdict.simulations} simulations, {plan.seconds:.1f} s")
    if out_file is not None:
        terminal.say(f"see it: tokenfleet replay {' '.join(trace or [])} --plan {out_file} --out DIR; report DIR")


def _explain(terminal: Terminal, verdict: Verdict) -> None:
    """The tables and sentences of a verdict."""
    for line in verdict_words(verdict):
        terminal.say(line)
    for table in verdict_tables(verdict):
        terminal.out.print(rich_table(table))
        if table.note:
            terminal.say(table.note)
