"""Verified plans: do they hold, and what do they cost? `python -m benchmarks.verified --data DIR [--seeds 3]`.

The first table is of the shipped scenario: per kind of arrivals and seed the cost, candidates, simulations and seconds,
and on how many of 20 draws that the search never saw every SLO holds, at the plain limits. Beside it what the plan of
the same policy costs without any headroom, and how many of its requests are late.

The second table sets the loop beside brute force on small catalogues: all fleets by rising rent, routed as evenly as
can be by the headroom that theory says and by the headroom that the loop learned, held against the same acceptance.
Brute force tries many more plans than the loop and so finds some that pass by luck: the last column says on how many
of 40 fresh draws its best holds. DIR holds the Azure 2023 traces; without it only the other arrivals are tried.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.options import trace_files
from experiments.scenario.scenario import Scenario, load_scenario, with_changes
from experiments.verify.draws import Draws, ScenarioDraws, TraceDraws
from experiments.verify.guess import Guess
from experiments.verify.loop import Loop, Options, Search
from experiments.verify.moves import even_routing
from policies.registry import make_policy
from simulator.catalog import candidate_configurations, load_catalog
from simulator.planning.problem import IntArray, PlanningProblem

CATALOGUES = {
    "2 models, 2 tiers": (["llama-3.1-8b", "qwen3-32b"], ["l40s-fp8", "h100-80-fp8"], (1, 2), 4),
    "2 models, 3 tiers": (["llama-3.2-3b", "qwen3-32b"], ["l4-fp8", "l40s-fp8", "h100-80-fp8"], (1, 2), 3),
}
TRACES = ("conv", "code")
KINDS = ("poisson", "synthetic", *TRACES, "both")


def small(name: str) -> Scenario:
    """The shipped scenario with a catalogue that brute force can go through."""
    models, tiers, degrees, replicas = CATALOGUES[name]
    scenario = load_scenario("azure-2023")
    catalog = load_catalog().select(models=models, tiers=tiers)
    configurations = candidate_configurations(catalog, degrees, (1,), 0.9).configurations
    scenario = replace(
        scenario, catalog=catalog, configurations=configurations, delay_model=type(scenario.delay_model)()
    )
    return with_changes(scenario, {"limits.max_replicas": replicas, "limits.budget_usd_per_h": 40.0})


def fleets(problem: PlanningProblem, most: int) -> Iterator[IntArray]:
    """All fleets with up to `most` replicas of one configuration of each (model, tier), by rising rent."""
    choices = []
    for columns in problem.configurations_of_pair.values():
        hardware = {problem.configurations[a].gpus: a for a in columns.tolist()}  # the slowest operating point of each
        choices.append([None, *((a, r) for a in hardware.values() for r in range(1, most + 1))])
    found = []
    for combination in itertools.product(*choices):
        fleet = np.zeros(len(problem.configurations), dtype=np.int64)
        for choice in combination:
            if choice is not None:
                fleet[choice[0]] = choice[1]
        found.append((float(problem.rent_usd @ fleet), fleet))
    yield from (fleet for _, fleet in sorted(found, key=lambda item: item[0]) if fleet.any())


def brute_force(scenario: Scenario, draws: Draws, options: Options, found: Search) -> tuple[Search, int]:
    """What is the cheapest fleet that is accepted, and how many were routed."""
    loop = Loop(scenario, draws, make_policy("agh"), options, lambda _: None)
    loop.found.guessed, loop.found.learned = found.guessed, np.ones_like(found.learned)
    by_theory = loop.problem()
    loop.found.learned = found.learned
    by_learning = loop.problem()
    best_usd, tried = np.inf, 0
    for fleet in fleets(by_theory, scenario.file.limits.max_replicas):
        if float(by_theory.rent_usd @ fleet) >= best_usd:
            break
        for problem in (by_theory, by_learning):
            candidate = even_routing(problem, fleet, policy="brute force", most_strain=8.0)
            tried += 1
            if candidate is not None and candidate.plan.cost_usd < best_usd:
                item = loop.attempt("brute force", candidate)
                if item.accepted:
                    best_usd = min(best_usd, item.trial.cost_usd_per_h)
    return loop.found, tried


def draws_of(scenario: Scenario, kind: str, data: Path | None, seed: int) -> tuple[Scenario, Draws] | None:
    """Arrivals of a kind, and the scenario in which they stand in; None where the data is not there."""
    if kind == "poisson":
        scenario = with_changes(scenario, {"synthetic.profile": "expected"})
        return scenario, ScenarioDraws(scenario, seed=seed)
    if kind == "synthetic":
        return scenario, ScenarioDraws(scenario, seed=seed)
    if data is None:
        return None
    names = TRACES if kind == "both" else (kind,)
    paths = [str(data / "traces" / f"AzureLLMInferenceTrace_{name}.csv") for name in names]
    return scenario, TraceDraws(scenario, trace_files(paths), hold_out=0.2, seed=seed)


def holds(found: Search, draws: Draws, draws_wanted: int, first: int) -> int:
    """On how many fresh draws the best plan holds at the plain limits."""
    assert found.best is not None
    plan = found.best.candidate.plan
    return sum(found.bench.trial(plan, draws.fresh(first + k), guard=1.0).holds for k in range(draws_wanted))


def shipped(data: Path | None, seeds: int) -> None:
    """The first table."""
    print(f"{'arrivals':<11}{'seed':>4}{'no headroom':>13}{'late':>7}", end="")
    print(f"{'verified':>10}{'plans':>7}{'sims':>6}{'s':>6}  holds")
    for kind in KINDS:
        for seed in range(seeds):
            made = draws_of(load_scenario("azure-2023"), kind, data, seed)
            if made is None:
                continue
            scenario, draws = made
            began = time.perf_counter()
            loop = Loop(scenario, draws, make_policy("agh+"), Options(seed=seed), lambda _: None)
            found = loop.run()
            seconds, simulations = time.perf_counter() - began, found.bench.simulations
            bare = Loop(scenario, draws, make_policy("agh+"), Options(guess=Guess.NONE, seed=seed), lambda _: None)
            full = bare.attempt("full", bare.planned())
            late = max(full.trial.late)
            print(f"{kind:<11}{seed:>4}{full.trial.cost_usd_per_h:>13.3f}{late:>7.1%}", end="")
            if found.best is None:
                print("   nothing accepted", flush=True)
                continue
            held = holds(found, draws, 20, found.unseen)
            print(
                f"{found.best.trial.cost_usd_per_h:>10.3f}{len(found.tried):>7}{simulations:>6}{seconds:>6.1f}", end=""
            )
            print(f"  {held} of 20", flush=True)


def beside_brute_force(data: Path | None, seed: int) -> None:
    """The second table."""
    print(f"{'arrivals':<11}{'catalogue':<19}{'loop':>8}{'brute':>8}{'above':>8}", end="")
    print(f"{'sims':>6}{'s':>6}{'routed':>8}{'s':>6}  holds")
    for catalogue in CATALOGUES:
        for kind in KINDS:
            made = draws_of(small(catalogue), kind, data, seed)
            if made is None:
                continue
            scenario, draws = made
            began = time.perf_counter()
            found = Loop(scenario, draws, make_policy("agh+"), Options(seed=seed), lambda _: None).run()
            seconds, began = time.perf_counter() - began, time.perf_counter()
            best, tried = brute_force(scenario, draws, Options(seed=seed), found)
            brute_s = time.perf_counter() - began
            ours = np.inf if found.best is None else found.best.trial.cost_usd_per_h
            known = np.inf if best.best is None else best.best.trial.cost_usd_per_h
            above = f"{100 * (ours / known - 1):.1f} %" if np.isfinite(known) else "-"
            held = "-" if best.best is None else f"{holds(best, draws, 40, 10_000)} of 40"
            print(f"{kind:<11}{catalogue:<19}{ours:>8.3f}{known:>8.3f}{above:>8}", end="")
            print(f"{found.bench.simulations:>6}{seconds:>6.1f}{tried:>8}{brute_s:>6.1f}  {held}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    shipped(arguments.data, arguments.seeds)
    print()
    beside_brute_force(arguments.data, 0)


if __name__ == "__main__":
    main()
