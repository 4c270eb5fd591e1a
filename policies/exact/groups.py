"""What the tree branches on: sums over groups of deployment options, which are whole numbers in every plan.

Branching on a single option is weak: without it some very similar option does. How many GPUs of one card are rented, or
how many deployments there are of a model, a tier, a size, or a (model, tier), splits the plans into two parts that both
look different from the relaxed solution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from policies.checking.certificate import Group
from policies.exact.options import Options
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem


@dataclass(frozen=True, slots=True)
class Groups:
    """G groups: their descriptions, and how much each option counts in each, shape (G, O), mostly zeros."""

    group: tuple[Group, ...]
    count: sparse.csr_matrix

    def rows(self, groups: Sequence[int] | IntArray) -> FloatArray:
        """Shape (n, O): the counts of some groups."""
        counts: FloatArray = self.count[list(groups)].toarray()
        return counts


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
    made: dict[bytes, tuple[Group, IntArray, IntArray]] = {}  # the first of those that count the same

    def add(chosen: BoolArray, *, by_gpus: bool = False, **fields: object) -> None:
        members = np.flatnonzero(chosen)
        counts = size[members] if by_gpus else np.ones(len(members), dtype=np.int64)
        group = _group(count="gpus" if by_gpus else "deployments", **fields)
        made.setdefault(members.tobytes() + counts.tobytes(), (group, members, counts))

    every = np.ones(len(options), dtype=np.bool_)
    add(every)
    add(every, by_gpus=True)
    for value in np.unique(price):
        of_card = price == value
        add(of_card, by_gpus=True, tiers=tuple(sorted(set(tier[of_card]))))
    for gpus in np.unique(size):
        add((size == gpus), gpus=(int(gpus),))
    for name in np.unique(model):
        of_model = model == name
        add(of_model, models=(str(name),))
        for gpus in np.unique(size[of_model]):
            add((of_model & (size == gpus)), models=(str(name),), gpus=(int(gpus),))
    for name in np.unique(tier):
        add((tier == name), tiers=(str(name),))
    for pair in np.unique(options.pair):
        d = int(np.flatnonzero(options.pair == pair)[0])
        add((options.pair == pair), models=(str(model[d]),), tiers=(str(tier[d]),))
    for d, c in enumerate(configurations):
        single = np.arange(len(options)) == d
        key = (c.tensor_parallel, c.pipeline_parallel, c.tpot_target_s, int(options.replicas[d]))
        add(single, models=(c.model,), tiers=(c.tier,), configuration=key)
    _, members, counts = zip(*made.values(), strict=True)
    starts = np.cumsum([0, *(len(m) for m in members)])
    count = sparse.csr_matrix(
        (np.concatenate(counts).astype(np.float64), np.concatenate(members), starts), shape=(len(made), len(options))
    )
    return Groups(group=tuple(group for group, _, _ in made.values()), count=count)


def _group(**fields: object) -> Group:
    blank: dict[str, object] = {"models": None, "tiers": None, "gpus": None, "configuration": None}
    return Group(**{**blank, **fields})  # type: ignore[arg-type]
