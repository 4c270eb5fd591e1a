"""Studies: questions that take many plans to answer. `STUDIES` is the registry: a new one is a module and a line here.

Each is a sweep (`experiments.sweep`) with a way to show it; docs/studies.md says what they measure and what they found.
"""

from experiments.studies import (
    ablation,
    budget,
    diurnal,
    frontier,
    headroom,
    hysteresis,
    interval,
    regret,
    scale,
    stress,
    volatility,
)
from experiments.studies.port import Study

STUDIES = {
    "stress": Study(
        "Delay and error worse than planned, from 1.0 to 1.5 times", stress.command, stress.view, stress.claims
    ),
    "volatility": Study(
        "Random-walk demand: re-planned or planned once", volatility.command, volatility.view, volatility.claims
    ),
    "diurnal": Study("A week with its days and nights", diurnal.command, diurnal.view),
    "scale": Study("Planning time and gap as problems grow", scale.command, scale.view, scale.claims),
    "ablation": Study(
        "What each mechanism of the heuristics is worth", ablation.command, ablation.view, ablation.claims
    ),
    "budget": Study("From a tight budget to an ample one", budget.command, budget.view, budget.claims),
    "interval": Study("How often to re-plan, with the price of moving", interval.command, interval.view),
    "frontier": Study("Cost against violations: what robustness is worth", frontier.command, frontier.view),
    "headroom": Study(
        "The headroom that percentiles need, by replicas and burstiness", headroom.command, headroom.view
    ),
    "regret": Study("Each policy against an oracle, and where the rest is lost", regret.command, regret.view),
    "hysteresis": Study("Churn against cost: how reluctant to move?", hysteresis.command, hysteresis.view),
}
