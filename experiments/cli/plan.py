"""`tokenfleet plan`: plan a problem file or a scenario, and verify the plan by simulation if that is asked for."""

import time
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from experiments.options import parse_reading, trace_files
from experiments.replay.controller import build_problem
from experiments.replay.run import survey
from experiments.report.replay_tables import plan_lines, plan_table
from experiments.scenario.calibration_notes import delay_remarks
from experiments.scenario.demand import expected_demand
from experiments.scenario.scenario import Scenario, load_scenario, slowed, with_delay_model
from experiments.scenario.slo import parse_percentile
from experiments.show.progress import JsonOption, MapOption, Terminal, account_lines
from experiments.show.terminal import print_table, rich_table
from experiments.verify.draws import Draws, ScenarioDraws, TraceDraws, draw_of, refuse_short, whole
from experiments.verify.guess import Guess
from experiments.verify.loop import Options, verify
from experiments.verify.sample import Sample
from experiments.verify.verdict import Verdict, verdict_of
from policies.checking.certificate import write_certificate
from policies.checking.checked_plan import checked_plan, checked_proof
from policies.checking.plan import CheckReport, check
from policies.checking.proof import Effort, Prover
from simulator.errors import InputError, RunError
from simulator.planning.files import plan_to_dict, read_problem, write_plan
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem

DEFAULT_POLICY, DEFAULT_VERIFIED = "agh", "agh+"


class Verify(StrEnum):
    """How a plan is verified."""

    SIMULATE = "simulate"


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
    seed: Annotated[int, typer.Option(min=0, help="One seed, one result.")] = 0,
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
    percentile: Annotated[
        str, typer.Option(help="At which the limits of types count that state no percentile_slos.")
    ] = "p95",
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
    delay_model: Annotated[str | None, typer.Option("--delay-model", help="Default: the scenario's.")] = None,
    columns: MapOption = None,
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
    (chosen,) = terminal.make_policies([name], [])
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
        options = Options(level=level, guard=guard, guess=guess, draws=draws, seed=seed)
        if effort is not None:
            options = replace(options, effort=effort)
        _verified(terminal, found, trace, columns, chosen, options, hold_out, out_file, as_json)
        return
    data = (
        read_problem(problem)
        if problem is not None
        else _problem(terminal, scenario, trace, columns, delay_model, seed)
    )
    took: Effort | None = None
    report: CheckReport | None
    with terminal.progress_bars() as bars:
        stop = StoppingRule(time_limit_s=time_limit, effort=effort, report=bars.search(chosen.name))
        if isinstance(chosen, Prover):
            proof, report = checked_proof(chosen, data, incumbent=None, stop=stop, seed=seed)
            made, took = proof.plan, proof.effort
            if certificate_file is not None:
                write_certificate(certificate_file, proof.certificate)
        else:
            made, report = checked_plan(chosen, data, incumbent=None, stop=stop, seed=seed)
    if out_file is not None:
        write_plan(out_file, made)
    if as_json:
        terminal.print_json(plan_to_dict(made) if took is None else {**plan_to_dict(made), "effort": asdict(took)})
        return
    print_table(terminal.out, plan_table(made, report.cost_parts_usd if report else {}))
    for line in plan_lines(made, took, data.period_h):
        terminal.say(line)
    if certificate_file is not None:
        terminal.say(f"proof of the bound: tokenfleet check --problem {problem} --certificate {certificate_file}")


def _scenario(terminal: Terminal, name: str | None, delay_model: str | None) -> Scenario:
    scenario = load_scenario(name or "azure-2023")
    if delay_model is not None:
        scenario = with_delay_model(scenario, delay_model)
    for remark in delay_remarks(scenario):
        terminal.note(remark)
    return scenario


def _problem(
    terminal: Terminal,
    name: str | None,
    trace: list[str] | None,
    columns: list[str] | None,
    delay_model: str | None,
    seed: int,
) -> PlanningProblem:
    """The scenario's problem of one hour: for the mean demand of the trace, or the expected one."""
    scenario = _scenario(terminal, name, delay_model)
    if not trace:
        return build_problem(scenario, expected_demand(scenario.types), name=f"{scenario.name}@nominal", period_h=1.0)
    source = trace_files(trace, parse_reading(None, columns))
    for read in survey(scenario, source).survey.reads:
        for line in account_lines(read):
            terminal.note(line)
    sample = Sample.of(draw_of(scenario, whole(source), "the trace", seed))
    return build_problem(scenario, sample.demand(scenario), name=f"{scenario.name}@trace", period_h=1.0)


def _verified(
    terminal: Terminal,
    scenario: Scenario,
    trace: list[str] | None,
    columns: list[str] | None,
    policy: Policy,
    options: Options,
    hold_out: float,
    out_file: Path | None,
    as_json: bool,
) -> None:
    if not scenario.has_queues:
        raise InputError(
            f"--verify: scenario {scenario.name} has no queues to verify: it takes `batching` capacity and discipline"
        )
    began = time.perf_counter()
    draws = _draws(scenario, trace, columns, options.seed, hold_out)
    silent = refuse_short(scenario, draws.learning, options.level)
    if silent:
        terminal.note(f"no request of {', '.join(silent)}: nothing is verified of them")
    search = verify(scenario, draws, policy, options, tell=terminal.note)
    verdict = verdict_of(scenario, draws, search, options)
    if search.best is None:
        if as_json:
            terminal.print_json({"verified": verdict.as_dict()})
        else:
            _explain(terminal, verdict)
        raise RunError(verdict.failure)
    best = search.best.candidate
    report = check(best.problem, best.plan)
    if not report.accepted:
        raise RunError("the checker refuses the plan: " + "; ".join(map(str, report.violations)))
    plan = replace(best.plan, seconds=time.perf_counter() - began)
    if out_file is not None:
        write_plan(out_file, plan)
    if as_json:
        terminal.print_json({**plan_to_dict(plan), "verified": verdict.as_dict()})
        return
    print_table(terminal.out, plan_table(plan, report.cost_parts_usd))
    _explain(terminal, verdict)
    terminal.say(f"{verdict.tried} plans tried in {verdict.simulations} simulations, {plan.seconds:.1f} s")
    if out_file is not None:
        terminal.say(f"see it: tokenfleet replay {' '.join(trace or [])} --plan {out_file} --out DIR; report DIR")


def _explain(terminal: Terminal, verdict: Verdict) -> None:
    """The tables and sentences of a verdict."""
    for line in verdict.words:
        terminal.say(line)
    for table in verdict.tables:
        terminal.out.print(rich_table(table))
        if table.note:
            terminal.say(table.note)


def _draws(scenario: Scenario, trace: list[str] | None, columns: list[str] | None, seed: int, hold_out: float) -> Draws:
    if trace:
        return TraceDraws(scenario, trace_files(trace, parse_reading(None, columns)), hold_out=hold_out, seed=seed)
    return ScenarioDraws(scenario, seed=seed)
