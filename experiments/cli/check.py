"""`tokenfleet check`: a plan against its problem, the proof of a bound, and a plan against the simulation."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import api
from experiments.measures.agreement import Agreement, agreement_table, agreement_words, mean_off
from experiments.options import DelayModelOption, JsonOption, ScenarioOption, SeedOption
from experiments.replay.run import horizon_of
from experiments.report.replay_tables import check_lines, verdict_lines
from experiments.scenario.scenario import load_scenario, with_delay_model
from experiments.show.progress import Terminal
from experiments.show.terminal import rich_table
from policies.checking.certificate import read_certificate
from policies.checking.plan import CheckReport, check
from policies.checking.verify import Verdict, verify
from simulator.errors import InputError
from simulator.planning.files import read_plan, read_problem
from simulator.planning.plan import Plan


def command(
    context: typer.Context,
    plan_file: Annotated[Path | None, typer.Argument(metavar="[PLAN]", help="A tokenfleet-plan/1 file.")] = None,
    problem: Annotated[
        Path | None, typer.Option("--problem", help="The tokenfleet-problem/1 file that it is for.")
    ] = None,
    certificate_file: Annotated[
        Path | None, typer.Option("--certificate", help="A tokenfleet-certificate/1 file: the proof of a bound.")
    ] = None,
    against_simulation: Annotated[
        bool, typer.Option("--against-simulation", help="Compare what the planner says of the plan with a simulation.")
    ] = False,
    scenario: ScenarioOption = "azure-2023",
    trace: Annotated[
        list[str] | None, typer.Option("--trace", help="Its trace files, repeatable; none: the scenario's arrivals.")
    ] = None,
    delay_model: DelayModelOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Check a plan, the proof of a bound, or both, from the problem alone, without a solver; exit code 1 if one fails.

    Of a plan every constraint and the cost are recomputed; of a certificate the bound is, from its multipliers. With
    --against-simulation the plan is replayed: do load, time per token and delay of each deployment come out as planned?

    Example: `tokenfleet check --problem 6x6x10-seed0.json.gz plan.json --certificate proof.json.gz`

    Example: `tokenfleet check plan.json --against-simulation --trace AzureLLMInferenceTrace_conv.csv`
    """
    terminal: Terminal = context.obj
    if plan_file is None and certificate_file is None:
        raise InputError("nothing to check: give a PLAN, a --certificate, or both")
    if problem is None and (certificate_file is not None or not against_simulation):
        raise InputError("--problem is missing: the problem file that the plan or the certificate is for")
    if against_simulation and plan_file is None:
        raise InputError("--against-simulation needs a PLAN to simulate")
    if trace and not against_simulation:
        raise InputError("--trace is for --against-simulation")
    data = None if problem is None else read_problem(problem)
    made = None if plan_file is None else read_plan(plan_file)
    certificate = None if certificate_file is None else read_certificate(certificate_file)
    report = None if made is None or data is None else check(data, made)
    verdict = None if certificate is None or data is None else verify(data, certificate)
    rows = []
    if against_simulation and made is not None:
        rows = against(made, scenario, trace or [], delay_model, seed)
    accepted = (report is None or report.accepted) and (verdict is None or verdict.accepted)
    if as_json:
        terminal.print_json(_as_dict(accepted, report, verdict, rows))
    else:
        for line in check_lines(report) if report is not None else []:
            terminal.say(line)
        for line in verdict_lines(verdict, report) if verdict is not None else []:
            terminal.say(line)
        if rows:
            dictionaries = [asdict(row) for row in rows]
            title = "Planned for these arrivals, against simulated"
            terminal.out.print(rich_table(agreement_table(dictionaries, title=title)))
            terminal.say(agreement_words(dictionaries))
    if not accepted:
        raise typer.Exit(1)


def against(plan: Plan, scenario: str, trace: list[str], delay_model: str | None, seed: int) -> list[Agreement]:
    """Replay a plan as it stands, and set what the planner says of it for these arrivals beside what the requests had.

    Raises
    ------
    InputError
        If the plan, the scenario or the trace does not fit.
    """
    chosen = load_scenario(scenario)
    if delay_model is not None:
        chosen = with_delay_model(chosen, delay_model)
    arriving = api.arrivals(chosen, trace, seed=seed)
    interval_s = horizon_of(arriving.survey.span_s)
    return api.replay(chosen, plan, arriving, interval_s=interval_s, seed=seed).agreement


def _as_dict(
    accepted: bool, report: CheckReport | None, verdict: Verdict | None, rows: list[Agreement]
) -> dict[str, Any]:
    result: dict[str, Any] = {"accepted": accepted}
    if report is not None:
        violations = [{**asdict(violation), "excess": violation.excess} for violation in report.violations]
        result["cost_usd"] = report.cost_usd
        result["cost_parts_usd"] = report.cost_parts_usd
        result["violations"] = violations
    if verdict is not None:
        result["certificate"] = asdict(verdict)
    if rows:
        dictionaries = [asdict(row) for row in rows]
        result["deployments"] = dictionaries
        result["mean_off"] = {name: mean_off(dictionaries, name) for name in ("load", "tpot_s", "delay_s")}
    return result
