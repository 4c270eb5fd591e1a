"""The proof on paper: the tree in the words of `policies/checking/certificate.py`."""

from collections.abc import Sequence

import numpy as np

from policies.checking.certificate import Certificate, Split
from policies.checking.certificate import Duals as StatedDuals
from policies.checking.certificate import Node as StatedNode
from policies.exact.groups import Groups
from policies.exact.tree import Node
from simulator.planning.problem import PlanningProblem


def certificate_of(
    problem: PlanningProblem, groups: Groups | None, bound_usd: float, nodes: Sequence[Node]
) -> Certificate:
    """The certificate of a bound that a tree has proven; without groups the tree is its root."""
    return Certificate(problem=problem.name, bound_usd=bound_usd, nodes=tuple(_stated(node, groups) for node in nodes))


def _stated(node: Node, groups: Groups | None) -> StatedNode:
    split = None
    if node.split is not None and groups is not None:
        group, at, below, above = node.split
        split = Split(group=groups.group[group], at=at, below=below, above=above)
    duals = node.duals
    if duals is None:
        return StatedNode(duals=None, split=split)
    return StatedNode(
        duals=StatedDuals(
            demand=tuple(duals.demand.tolist()),
            delay=tuple(duals.delay.tolist()),
            error=tuple(duals.error.tolist()),
            budget=duals.budget,
            storage=duals.storage,
            covers=tuple(
                (cover.query_type, cover.weight, float(usd))
                for cover, usd in zip(node.covers, duals.covers, strict=True)
                if usd > 0
            ),
            restrictions=tuple((int(k), float(duals.restrictions[k])) for k in np.flatnonzero(duals.restrictions)),
        ),
        split=split,
    )
