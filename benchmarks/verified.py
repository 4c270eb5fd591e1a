"""Verified plans beside the best that brute force finds: `python -m benchmarks.verified --data DIR`.

Brute force goes through all fleets of a small catalogue by rising rent, routes each as evenly as can be by the headroom
that theory says and by the headroom that the loop learned, and holds it against the same acceptance as the loop. The
first that is accepted, and cheaper ones of equal rent, are the best known. DIR holds the Azure 2023 traces; without it
only Poisson and synthetic arrivals are tried.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.options import parse_reading, trace_files
from experiments.scenario import Scenario, load_scenario, with_changes
from experiments.verify.draws import Draws, ScenarioDraws, TraceDraws
from experiments.verify.loop import Loop, Options, Search
from experiments.verify.moves import even_routing
from policies.registry import make_policy
from simulator.catalog import candidate_configurations, load_catalog
from simulator.problem import IntArray, PlanningProblem

CATALOGUES = {
    "2 models, 2 tiers": (["llama-3.1-8b", "qwen3-32b"], ["l40s-fp8", "h100-80-fp8"], (1, 2), 4),
    "2 models, 3 tiers": (["llama-3.2-3b", "qwen3-32b"], ["l4-fp8", "l40s-fp8", "h100-80-fp8"], (1, 2), 3),
}
TRACES = ("conv", "code")


def small(name: str) -> Scenario:
    """The shipped scenario with a catalogue that brute force can go through."""
    models, tiers, degrees, replicas = CATALOGUES[name]
    scenario = load_scenario("azure-2023")
    catalog = load_catalog().select(models=models, tiers=tiers)
    configurations = candidate_configurations(catalog, degrees, (1,), 0.9)
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


def brute_force(scenario: Scenario, draws: Draws, options: Options, found: Search) -> tuple[float, int]:
    """The cheapest fleet that is accepted [USD/h], and how many were routed."""
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
    return best_usd, tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{'arrivals':<12}{'catalogue':<20}{'loop [USD/h]':>13}{'brute [USD/h]':>14}{'above':>8}", end="")
    print(f"{'sims':>6}{'s':>7}{'routed':>8}{'s':>7}")
    sources: dict[str, list[str]] = {"synthetic": []}
    if arguments.data:
        for name in TRACES:
            sources[name] = [str(arguments.data / "traces" / f"AzureLLMInferenceTrace_{name}.csv")]
        sources["both"] = [*sources["conv"], *sources["code"]]
    for catalogue in CATALOGUES:
        scenario = small(catalogue)
        for arrivals, paths in sources.items():
            options = Options(seed=arguments.seed)
            draws: Draws = (
                TraceDraws(scenario, trace_files(paths, parse_reading()), hold_out=0.2, seed=arguments.seed)
                if paths
                else ScenarioDraws(scenario, seed=arguments.seed)
            )
            began = time.perf_counter()
            loop = Loop(scenario, draws, make_policy("agh+"), options, lambda _: None)
            found = loop.run()
            seconds, began = time.perf_counter() - began, time.perf_counter()
            best_usd, tried = brute_force(scenario, draws, options, found)
            brute_s = time.perf_counter() - began
            ours = np.inf if found.best is None else found.best.trial.cost_usd_per_h
            above = f"{100 * (ours / best_usd - 1):.1f} %" if np.isfinite(best_usd) else "-"
            print(f"{arrivals:<12}{catalogue:<20}{ours:>13.3f}{best_usd:>14.3f}{above:>8}", end="")
            print(f"{found.bench.simulations:>6}{seconds:>7.1f}{tried:>8}{brute_s:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
