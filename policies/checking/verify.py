"""Whether a certificate proves its bound: from the problem alone, with sums, products and comparisons."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from policies.checking.bound import Restriction, node_bound
from policies.checking.certificate import Certificate, Duals, Group, tree_complaints
from policies.checking.universe import TOLERANCE, Universe
from simulator.errors import InputError
from simulator.planning.problem import IntArray, PlanningProblem
from simulator.validation import closest

ROUNDS = 3  # evaluations of one node, each after the options that the one before ruled out


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found.

    Attributes
    ----------
    bound_usd
        The bound that the certificate states.
    root_bound_usd
        What the root's duals alone prove, minus infinity if it has none.
    nodes
        Number of nodes that were examined.
    reason
        Why the certificate fails, None if it is accepted.
    """

    accepted: bool
    bound_usd: float
    root_bound_usd: float
    nodes: int
    reason: str | None


def verify(problem: PlanningProblem, certificate: Certificate) -> Verdict:
    """Check the proof that every plan of the problem costs at least the certificate's bound, up to `TOLERANCE`.

    From the root on, each node keeps the options that a cheaper plan could still deploy. Duals that prove the bound
    close a node; otherwise they rule out the options with which they prove it, and the split hands the rest on.

    Parameters
    ----------
    problem, certificate
        They must be of the same name; costs are USD per period of the problem.

    Raises
    ------
    InputError
        If the certificate is no tree, does not fit the problem or has multipliers out of range, naming each field.
    """
    _refuse_if_any(tree_complaints(certificate))  # before anything follows an index
    _refuse_if_any(_fit_complaints(problem, certificate))
    universe = Universe(problem)
    target_usd = certificate.bound_usd
    root_bound_usd, examined, reason = -math.inf, 0, None
    waiting: list[tuple[int, tuple[Restriction, ...], IntArray]] = [(0, (), np.arange(len(universe.configuration)))]
    while waiting and reason is None:
        n, path, alive = waiting.pop()
        node = certificate.nodes[n]
        examined += 1
        bound_usd, closed = -math.inf, False
        for _ in range(ROUNDS if node.duals is not None else 0):
            assert node.duals is not None
            bound_usd, with_option_usd = node_bound(universe, node.duals, path, alive)
            if n == 0 and root_bound_usd == -math.inf:
                root_bound_usd = bound_usd
            closed = bound_usd >= target_usd - TOLERANCE * abs(target_usd)
            out = with_option_usd >= target_usd
            if closed or not out.any():
                break
            alive = alive[~out]
        if closed:
            continue
        if node.split is None:
            reason = f"node {n} is neither closed nor split: its bound is {bound_usd:.9g} USD, not {target_usd:.9g} USD"
            continue
        split = node.split
        count = universe.count(split.group)
        above = Restriction(count=count, limit=split.at + 1, above=True)
        below = Restriction(count=count, limit=split.at, above=False)
        waiting.append((split.above, (*path, above), alive))
        # An option that alone counts more than the limit is not open on this side.
        waiting.append((split.below, (*path, below), alive[count[alive] <= split.at]))
    return Verdict(
        accepted=reason is None,
        bound_usd=target_usd,
        root_bound_usd=root_bound_usd,
        nodes=examined,
        reason=reason,
    )


def _fit_complaints(problem: PlanningProblem, certificate: Certificate) -> Iterator[str]:
    """Parts of a certificate that do not fit the problem, and numbers out of range in one that was never a file."""
    if certificate.problem != problem.name:
        yield f"problem: the certificate is of {certificate.problem!r}, not of {problem.name!r}"
    known = problem.allowed
    if not all(
        np.isfinite(values[known]).all() for values in (problem.delay_s, problem.error, problem.load, problem.kv)
    ):
        yield f"problem: {problem.name} has a route that is allowed and has no finite delay, error, load or KV"
    if not math.isfinite(certificate.bound_usd):
        yield f"bound_usd: expected a finite number, found {certificate.bound_usd}"
    if not certificate.nodes:
        yield "nodes: expected at least one"
    depth = [0] * len(certificate.nodes)
    for n, node in enumerate(certificate.nodes):
        if node.duals is not None:
            yield from _duals_complaints(problem, f"nodes[{n}].duals", node.duals, depth[n])
        if node.split is not None:
            yield from _group_complaints(problem, f"nodes[{n}].split.group", node.split.group)
            if node.split.at < 0 or node.split.at != int(node.split.at):
                yield f"nodes[{n}].split.at: expected a whole number of at least 0, found {node.split.at}"
            depth[node.split.below] = depth[node.split.above] = depth[n] + 1


def _duals_complaints(problem: PlanningProblem, field: str, duals: Duals, depth: int) -> Iterator[str]:
    types = len(problem.query_types)
    signed: list[tuple[str, float]] = [("budget", duals.budget), ("storage", duals.storage)]
    for name in ("demand", "delay", "error"):
        values = getattr(duals, name)
        if len(values) != types:
            yield f"{field}.{name}: expected {types} values, one per query type, found {len(values)}"
        if name != "demand":
            signed += [(f"{name}[{i}]", value) for i, value in enumerate(values)]
    for i, value in enumerate(duals.demand):
        if not math.isfinite(value):
            yield f"{field}.demand[{i}]: expected a finite number, found {value}"
    for c, (i, weight, multiplier) in enumerate(duals.covers):
        signed.append((f"covers[{c}][2]", multiplier))
        if not 0 <= weight <= 1:
            yield f"{field}.covers[{c}][1]: expected a weight in [0, 1], found {weight}"
        if not 0 <= i < types:
            yield f"{field}.covers[{c}][0]: expected the index of one of {types} query types, found {i}"
        elif not (problem.delay_slo_s[i] > 0 and problem.error_slo[i] > 0):
            yield f"{field}.covers[{c}][0]: query type {i} has a limit of 0, which allows no cover"
    for c, (index, multiplier) in enumerate(duals.restrictions):
        signed.append((f"restrictions[{c}][1]", multiplier))
        if not 0 <= index < depth:
            yield f"{field}.restrictions[{c}][0]: expected the index of one of {depth} on the path, found {index}"
    for name, value in signed:
        if not 0 <= value < math.inf:
            yield f"{field}.{name}: expected a finite number of at least 0, found {value}"


def _group_complaints(problem: PlanningProblem, field: str, group: Group) -> Iterator[str]:
    for name, chosen, known in (
        ("models", group.models, problem.model_by_name),
        ("tiers", group.tiers, problem.tier_by_name),
    ):
        for n, value in enumerate(chosen or ()):
            if value not in known:
                yield f"{field}.{name}[{n}]: {problem.name} has no {value!r}: {closest(value, known)}"
    if group.count not in ("deployments", "gpus"):
        yield f"{field}.count: expected 'deployments' or 'gpus', found {group.count!r}"


def _refuse_if_any(complaints: Iterable[str]) -> None:
    if found := list(complaints):
        raise InputError(f"certificate: {complaint}" for complaint in found)
