"""What the tree branches on: sums over groups of deployment options, which are whole numbers in every plan.

Branching on a single option is weak: without it some very similar option does. How many GPUs of one card are rented, or
how many deployments there are of a model, a tier, a size, or a (model, tier), splits the plans into two parts that both
look different from the relaxed solution.
"""

from dataclasses import dataclass

import numpy as np

from policies.certificate import Group
from policies.exact.options import Options
from simulator.problem import FloatArray, IntArray, PlanningProblem


@dataclass(frozen=True, slots=True)
class Groups:
    """G groups: their descriptions, and how much each option counts in each, shape (G, O)."""

    group: tuple[Group, ...]
    count: FloatArray


@dataclass(frozen=True, slots=True)
class Restriction:
    """One side of a branching: the sum of a group is at most `at`, or (above) at least `at` + 1."""

    group: int
    at: int
    above: bool

    @property
    def limit(self) -> float:
        return float(self.at + 1 if self.above else self.at)


def branching_groups(problem: PlanningProblem, options: Options) -> Groups:
    """Groups of options that differ from each other, the coarse ones first."""
    configurations = [problem.configurations[a] for a in options.configuration]
    model = np.array([c.model for c in configurations])
    tier = np.array([c.tier for c in configurations])
    price = np.array([problem.tier_by_name[name].price_usd_per_gpu_h for name in tier])
    size = options.gpus
    made: list[tuple[Group, IntArray]] = []

    def add(chosen: IntArray, **fields: object) -> None:
        by_gpus = fields.pop("by_gpus", False)
        count = "gpus" if by_gpus else "deployments"
        made.append((_group(count=count, **fields), chosen * (size if by_gpus else 1)))

    every = np.ones(len(options), dtype=np.int64)
    add(every)
    add(every, by_gpus=True)
    for value in np.unique(price):
        of_card = price == value
        add(of_card * every, by_gpus=True, tiers=tuple(sorted(set(tier[of_card]))))
    for gpus in np.unique(size):
        add((size == gpus) * every, gpus=(int(gpus),))
    for name in np.unique(model):
        of_model = model == name
        add(of_model * every, models=(str(name),))
        for gpus in np.unique(size[of_model]):
            add((of_model & (size == gpus)) * every, models=(str(name),), gpus=(int(gpus),))
    for name in np.unique(tier):
        add((tier == name) * every, tiers=(str(name),))
    for pair in np.unique(options.pair):
        d = int(np.flatnonzero(options.pair == pair)[0])
        add((options.pair == pair) * every, models=(str(model[d]),), tiers=(str(tier[d]),))
    for d, c in enumerate(configurations):
        single = np.zeros(len(options), dtype=np.int64)
        single[d] = 1
        key = (c.tensor_parallel, c.pipeline_parallel, c.tpot_target_s, int(options.replicas[d]))
        add(single, models=(c.model,), tiers=(c.tier,), configuration=key)
    count = np.array([counts for _, counts in made], dtype=np.float64)
    _, first = np.unique(count, axis=0, return_index=True)
    first = np.sort(first)
    return Groups(group=tuple(made[g][0] for g in first), count=count[first])


def _group(**fields: object) -> Group:
    blank: dict[str, object] = {"models": None, "tiers": None, "gpus": None, "configuration": None}
    return Group(**{**blank, **fields})  # type: ignore[arg-type]
