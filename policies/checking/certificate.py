"""Certificates (`tokenfleet-certificate/1`): a proof that no plan of a problem costs less than a bound.

A certificate is a branch-and-bound tree whose nodes carry multipliers (duals). `verify` recomputes from the problem
alone what they prove, with sums, products and comparisons: no solver is called, and nothing is shared with the one
that wrote the certificate. Whatever numbers stand in a certificate, a wrong bound is refused: duals that are no
optimum only prove less.

What is bounded
---------------
The plans of the planning problem, in this form: an *option* `d = (a, r)` is configuration `a` with `r` replicas; `z_d`
is 1 where it is deployed, and at most one option of each (model, tier) pair is. `x_id` is the share of type `i` that it
serves, `u_i` the share that nobody serves::

    min  sum_d fixed_usd_d z_d + sum_id (delay_penalty_usd_id + token_storage_usd_i) x_id + sum_i unmet_usd_i u_i

A type's limits bound each of its shares: `x_id <= largest_share_id z_d` with `min(1, delay_slo_i / delay_id,
error_slo_i / error_id)`, and 0 where the route is not allowed.

Options that are left out
-------------------------
The universe of options leaves out what no plan needs:

- replicas beyond those that carry the largest shares of all types together: they cost rent and carry nothing;
- options whose own rent and storage exceed the budget, or whose weights exceed the storage;
- options dominated by another of their pair, which costs no more, serves each type that they serve with no more delay
  and error, and on which each type takes no larger part of the capacity (or on which everything fits anyway). A plan
  deploys at most one of the two, so it can deploy the other instead and keep its shares: the largest shares are no
  smaller, every constraint is kept (the weights of a pair are the same), and it costs no more. So some optimal plan
  uses the universe only, and this replacement is made once, before any branching.

Lagrangian bound of a node
--------------------------
Multipliers move demand, delay, error, budget, storage, covers and branching restrictions into the objective. What is
left falls apart into pairs: each deploys the option of least reduced cost `rc_d`, or none. `rc_d` contains a knapsack
with two capacities; with any multipliers `mu, rho >= 0`::

    knapsack_d <= mu cap_a r + rho r + sum_i largest_share_id max(0, reward_id - mu load_ia - rho kv_ia)

so how they are found (`_multipliers`) is a matter of strength and not of truth.

A *cover* of type `i` with weight `w`: option `d` has the value `w delay/delay_slo + (1 - w) error/error_slo`, and is
good if that is at most 1. With no good option open and `t` the least value of the others, `t (1 - u_i) <= w + 1 - w`,
so `sum_good z_d + k u_i >= 1` with `k = t / (t - 1)`. Where all are good, `u_i = 1` without them, so `k = 1`.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from simulator.errors import InputError
from simulator.planning.files import Count, Degree, NonNegative, Number, Positive, Share, read_json, write_text
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem
from simulator.validation import StrictModel, closest, input_error

TOLERANCE = 1e-9  # relative: of the comparisons between options, and between a node's bound and the stated one
ROUNDING = 1e-13  # relative to the sum of the magnitudes in a sum: several times what double precision can lose
ROUNDS = 3  # evaluations of one node, each after the options that the one before ruled out
MULTIPLIER_STEPS = 60  # most steps in the search for a multiplier of the KV row

Counted = Literal["deployments", "gpus"]


# -- values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Options that a split counts: those that match every field that is not None.

    Attributes
    ----------
    gpus
        Numbers of GPUs of the option in total: tensor parallel x pipeline parallel x replicas.
    configuration
        Tensor parallel, pipeline parallel, `tpot_target_s` (or None) and replicas.
    count
        Whether a deployed option counts once or with its GPUs.
    """

    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    gpus: tuple[int, ...] | None = None
    configuration: tuple[int, int, float | None, int] | None = None
    count: Counted = "deployments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The plans whose count of `group` is at most `at` (node `below`), and those with more (node `above`)."""

    group: Group
    at: int
    below: int
    above: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duals:
    """Multipliers of a node.

    Attributes
    ----------
    demand
        Per type, any sign [USD per whole demand].
    delay, error
        Per type, at least 0 [USD per second, USD per unit of error].
    budget, storage
        At least 0 [USD per USD, USD per GB].
    covers
        Type index, weight of the delay in [0, 1], multiplier at least 0 [USD].
    restrictions
        Index on the path from the root, multiplier at least 0 [USD per count].
    """

    demand: tuple[float, ...]
    delay: tuple[float, ...]
    error: tuple[float, ...]
    budget: float = 0.0
    storage: float = 0.0
    covers: tuple[tuple[int, float, float], ...] = ()
    restrictions: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of the plans: closed by its duals, or split further."""

    duals: Duals | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The claim that every plan of the problem named `problem` costs at least `bound_usd`; node 0 is the root."""

    problem: str
    bound_usd: float
    nodes: tuple[Node, ...]


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


# -- files ----------------------------------------------------------------------------------------------------------

_Index = Annotated[int, Field(strict=True, ge=0, le=10**9)]


class _Group(StrictModel):
    models: tuple[str, ...] | None
    tiers: tuple[str, ...] | None
    gpus: tuple[Count, ...] | None
    configuration: tuple[Degree, Degree, Positive | None, Count] | None
    count: Counted


class _Split(StrictModel):
    group: _Group
    at: _Index
    below: _Index
    above: _Index


class _Duals(StrictModel):
    demand: tuple[Number, ...]
    delay: tuple[NonNegative, ...]
    error: tuple[NonNegative, ...]
    budget: NonNegative
    storage: NonNegative
    covers: tuple[tuple[_Index, Share, NonNegative], ...]
    restrictions: tuple[tuple[_Index, NonNegative], ...]


class _Node(StrictModel):
    duals: _Duals | None
    split: _Split | None


class _Certificate(StrictModel):
    format: Literal["tokenfleet-certificate/1"]
    problem: str
    bound_usd: Number
    nodes: Annotated[tuple[_Node, ...], Field(min_length=1)]


def read_certificate(path: Path) -> Certificate:
    """Read a `tokenfleet-certificate/1` file, gzipped or not.

    Raises
    ------
    InputError
        Naming each field that is missing, unknown or out of range, and each node that is no part of one tree.
    """
    try:
        raw = _Certificate.model_validate(read_json(path))
    except ValidationError as error:
        raise input_error(str(path), error) from None
    nodes = []
    for item in raw.nodes:
        duals = Duals(**item.duals.model_dump()) if item.duals else None
        split = None
        if item.split:
            group = Group(**item.split.group.model_dump())
            split = Split(group=group, at=item.split.at, below=item.split.below, above=item.split.above)
        nodes.append(Node(duals=duals, split=split))
    certificate = Certificate(problem=raw.problem, bound_usd=raw.bound_usd, nodes=tuple(nodes))
    if complaints := list(_tree_complaints(certificate)):
        raise InputError(f"{path}: {complaint}" for complaint in complaints)
    return certificate


def _node_to_dict(node: Node) -> dict[str, Any]:
    duals, split = node.duals, node.split
    return {
        "duals": duals
        and {
            "demand": list(duals.demand),
            "delay": list(duals.delay),
            "error": list(duals.error),
            "budget": duals.budget,
            "storage": duals.storage,
            "covers": [list(cover) for cover in duals.covers],
            "restrictions": [list(restriction) for restriction in duals.restrictions],
        },
        "split": split
        and {
            "group": {
                "models": _list_or_none(split.group.models),
                "tiers": _list_or_none(split.group.tiers),
                "gpus": _list_or_none(split.group.gpus),
                "configuration": _list_or_none(split.group.configuration),
                "count": split.group.count,
            },
            "at": split.at,
            "below": split.below,
            "above": split.above,
        },
    }


def _list_or_none(values: tuple[Any, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)


def certificate_to_dict(certificate: Certificate) -> dict[str, Any]:
    """The `tokenfleet-certificate/1` object of a certificate."""
    return {
        "format": "tokenfleet-certificate/1",
        "problem": certificate.problem,
        "bound_usd": certificate.bound_usd,
        "nodes": [_node_to_dict(node) for node in certificate.nodes],
    }


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write a certificate, one node per line; gzipped if the name ends in .gz."""
    document = certificate_to_dict(certificate)
    nodes = ",\n  ".join(json.dumps(node, allow_nan=False) for node in document.pop("nodes"))
    head = json.dumps(document, indent=1, allow_nan=False).removesuffix("\n}")
    write_text(path, f'{head},\n "nodes": [\n  {nodes}\n ]\n}}\n')


# -- what a certificate must be before it can prove anything ----------------------------------------------------------


def _tree_complaints(certificate: Certificate) -> Iterator[str]:
    """Nodes that do not form one tree with the root first."""
    parents = [0] * len(certificate.nodes)
    for n, node in enumerate(certificate.nodes):
        if node.split is None:
            continue
        for side, child in (("below", node.split.below), ("above", node.split.above)):
            field = f"nodes[{n}].split.{side}"
            if not child < len(certificate.nodes):
                yield f"{field}: expected one of the {len(certificate.nodes)} nodes, found {child}"
            elif not child > n:
                yield f"{field}: expected an index larger than the node's own ({n}), found {child}"
            else:
                parents[child] += 1
    for n, count in enumerate(parents[1:], start=1):
        if count != 1:
            yield f"nodes[{n}]: expected exactly one parent, found {count}"


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


# -- the universe of options ------------------------------------------------------------------------------------------


def _at_most(value: Any, limit: Any) -> Any:
    """Whether `value <= limit` up to the tolerance; both at least 0."""
    return value <= limit + TOLERANCE * np.abs(limit)


class _Universe:
    """The options of a problem, and what the bounds need of them.

    Attributes
    ----------
    largest_share
        Shape (types, configurations): what limits of delay and error leave of a type's demand.
    delay_s, error, load, kv
        Shape (types, configurations): as in the problem, but 0 where the largest share is.
    configuration, replicas, pair
        Shape (options,).
    fixed_usd, storage_gb
        Shape (options,): rent and storage of the weights.
    """

    def __init__(self, problem: PlanningProblem) -> None:
        self.problem = problem
        self.largest_share = largest_share(problem)
        used = self.largest_share > 0
        self.delay_s = np.where(used, problem.delay_s, 0.0)
        self.error = np.where(used, problem.error, 0.0)
        self.load = np.where(used, problem.load, 0.0)
        self.kv = np.where(used, problem.kv, 0.0)
        self.load_of_all = (self.load * self.largest_share).sum(axis=0)
        self.kv_of_all = (self.kv * self.largest_share).sum(axis=0)

        configuration, replicas = self._useful()
        fixed_usd = problem.rent_usd[configuration] * replicas + problem.model_storage_usd[configuration]
        possible = _at_most(fixed_usd, problem.budget_usd)
        possible &= _at_most(problem.model_storage_gb[configuration], problem.storage_capacity_gb)
        self._keep(configuration[possible], replicas[possible], fixed_usd[possible])
        kept = np.ones(len(self.configuration), dtype=np.bool_)
        for members in _groups(self.pair):
            kept[members] = ~self._dominated(members)
        self._keep(self.configuration[kept], self.replicas[kept], self.fixed_usd[kept])

        self.storage_gb = problem.model_storage_gb[self.configuration]
        self.gpus = problem.gpus[self.configuration] * self.replicas
        self.load_limit = problem.cap[self.configuration] * self.replicas
        self.pairs = int(self.pair.max()) + 1 if len(self.pair) else 0
        self._counts: dict[Group, IntArray] = {}
        self._covers: dict[tuple[int, float], tuple[BoolArray, float]] = {}

    def _useful(self) -> tuple[IntArray, IntArray]:
        """Configuration and replicas of every option with no more replicas than can be filled."""
        a = np.flatnonzero(self.largest_share.any(axis=0))
        # Without capacity (cap 0) only types without load have a share, so there is no load to divide.
        cap = np.where(self.problem.cap[a] > 0, self.problem.cap[a], 1.0)
        filled = np.ceil(np.maximum(self.load_of_all[a] / cap, self.kv_of_all[a]) - TOLERANCE)
        most = np.clip(filled, 1, self.problem.max_replicas).astype(np.int64)
        configuration = np.repeat(a, most)
        replicas = np.arange(1, len(configuration) + 1) - np.repeat(np.cumsum(most) - most, most)
        return configuration, replicas

    def _keep(self, configuration: IntArray, replicas: IntArray, fixed_usd: FloatArray) -> None:
        self.configuration, self.replicas, self.fixed_usd = configuration, replicas, fixed_usd
        self.pair = self.problem.pair_index[configuration]

    def _dominated(self, members: IntArray) -> BoolArray:
        """Which options of a pair some other option of it can always stand in for."""
        a = self.configuration[members]
        limit = self.problem.cap[a] * self.replicas[members]
        served = self.largest_share[:, a] > 0
        load = np.divide(self.load[:, a], limit, where=limit > 0, out=np.zeros(served.shape))  # no capacity, no load
        kv = self.kv[:, a] / self.replicas[members]

        # Axes: types, the option that may stand in, the option that is left out.
        def no_more(values: FloatArray) -> BoolArray:
            fine: BoolArray = _at_most(values[:, :, None], values[:, None, :]) | ~served[:, None, :]
            return fine

        quality = (no_more(self.problem.delay_s[:, a]) & no_more(self.problem.error[:, a])).all(axis=0)
        serves = (served[:, :, None] | ~served[:, None, :]).all(axis=0)  # every type that the other one serves
        fits_load = _at_most(self.load_of_all[a], limit)[:, None]
        fits_kv = _at_most(self.kv_of_all[a], self.replicas[members])[:, None]
        better = serves & quality
        better &= (fits_load | no_more(load).all(axis=0)) & (fits_kv | no_more(kv).all(axis=0))
        better &= _at_most(self.fixed_usd[members][:, None], self.fixed_usd[members][None, :])
        first = np.arange(len(members))
        better &= ~better.T | (first[:, None] < first[None, :])  # of equals the first stays; none beats itself

        # Up to a tolerance, options can beat each other in a circle: what none that stays stands in for comes back.
        stays = ~better.any(axis=0)
        reached = stays
        while (more := reached | better[reached].any(axis=0)).sum() > reached.sum():
            reached = more
        dominated: BoolArray = ~stays & reached
        return dominated

    def count(self, group: Group) -> IntArray:
        """Shape (options,): how much each option counts in a group."""
        if group not in self._counts:
            configurations = self.problem.configurations
            match = np.ones(len(configurations), dtype=np.bool_)
            if group.models is not None:
                match &= np.array([c.model in group.models for c in configurations], dtype=np.bool_)
            if group.tiers is not None:
                match &= np.array([c.tier in group.tiers for c in configurations], dtype=np.bool_)
            if group.configuration is not None:
                *shape, _ = group.configuration
                own = [[c.tensor_parallel, c.pipeline_parallel, c.tpot_target_s] for c in configurations]
                match &= np.array([item == shape for item in own], dtype=np.bool_)
            counted = match[self.configuration]
            if group.configuration is not None:
                counted &= self.replicas == group.configuration[3]
            if group.gpus is not None:
                counted &= np.isin(self.gpus, group.gpus)
            self._counts[group] = np.where(counted, self.gpus if group.count == "gpus" else 1, 0)
        return self._counts[group]

    def cover(self, i: int, weight: float) -> tuple[BoolArray, float]:
        """Good options of a cover, shape (options,), and the factor `k` of the unmet share (module text)."""
        if (i, weight) not in self._covers:
            delay = self.delay_s[i, self.configuration] / self.problem.delay_slo_s[i]
            error = self.error[i, self.configuration] / self.problem.error_slo[i]
            value = weight * delay + (1 - weight) * error
            serves = self.largest_share[i, self.configuration] > 0
            good = serves & (value <= 1 + TOLERANCE)
            least = float(value[serves & ~good].min(initial=math.inf))
            self._covers[i, weight] = good, least / (least - 1) if math.isfinite(least) else 1.0
        return self._covers[i, weight]

    @cached_property
    def per_option(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Load, KV and largest share with shape (options, types)."""
        columns = self.configuration
        return (
            np.ascontiguousarray(self.load[:, columns].T),
            np.ascontiguousarray(self.kv[:, columns].T),
            np.ascontiguousarray(self.largest_share[:, columns].T),
        )


def largest_share(problem: PlanningProblem) -> FloatArray:
    """Shape (types, configurations): the most of a type's demand that its limits let a configuration serve."""
    usable = problem.allowed & ((problem.cap > 0) | (problem.load == 0))
    share = np.where(usable, 1.0, 0.0)
    for values, limits in ((problem.delay_s, problem.delay_slo_s), (problem.error, problem.error_slo)):
        limited = usable & (values > 0)
        most = np.divide(np.broadcast_to(limits[:, None], share.shape), values, where=limited, out=np.ones_like(share))
        share = np.minimum(share, most)
    return share


def _groups(labels: IntArray) -> list[IntArray]:
    """Positions of equal labels, in their order."""
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


# -- the Lagrangian bound of a node -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Restriction:
    """One side of a split on the path: `sum count z >= limit` if `above`, else `sum count z <= limit`."""

    count: IntArray
    limit: int
    above: bool


def _times(multipliers: FloatArray, limits: FloatArray) -> float:
    """Their product, where a multiplier of 0 counts nothing even of an infinite limit."""
    used = multipliers != 0
    return float(multipliers[used] @ limits[used])


def _bound(
    universe: _Universe, duals: Duals, path: tuple[_Restriction, ...], alive: IntArray
) -> tuple[float, FloatArray]:
    """What the duals prove over the options `alive`.

    Returns
    -------
    bound_usd
        A lower bound on the cost of every plan with these options within these restrictions.
    with_option_usd
        Shape (alive,): the same for the plans that deploy the option.
    """
    problem = universe.problem
    demand, delay, error = (np.array(values, dtype=np.float64) for values in (duals.demand, duals.delay, duals.error))
    # Huge multipliers cancel until nothing but rounding is left. So each sum comes with the sum of its magnitudes, and
    # gives way by that much rounding. What overflows becomes no number, which closes no node and rules out no option.
    with np.errstate(over="ignore", invalid="ignore"):
        limits = [_times(delay, problem.delay_slo_s), _times(error, problem.error_slo)]
        limits.append(_times(np.array([duals.budget]), np.array([problem.budget_usd])))
        limits.append(_times(np.array([duals.storage]), np.array([problem.storage_capacity_gb])))
        bound_usd = float(demand.sum()) - sum(limits)
        magnitude_usd = float(np.abs(demand).sum()) + sum(limits)

        # Unmet shares and reduced costs of deploying, first without what an option serves.
        unmet_usd = problem.unmet_usd - demand
        unmet_magnitude_usd = problem.unmet_usd + np.abs(demand)
        own_usd = (1 + duals.budget) * universe.fixed_usd[alive] + duals.storage * universe.storage_gb[alive]
        own_magnitude_usd = own_usd.copy()
        for i, weight, multiplier in duals.covers:
            good, factor = universe.cover(i, weight)
            bound_usd += multiplier
            unmet_usd[i] -= multiplier * factor
            unmet_magnitude_usd[i] += multiplier * factor
            own_usd -= multiplier * good[alive]
            own_magnitude_usd += multiplier
            magnitude_usd += multiplier
        for index, multiplier in duals.restrictions:
            restriction = path[index]
            sign = 1 if restriction.above else -1
            counted = multiplier * restriction.count[alive]
            bound_usd += sign * multiplier * restriction.limit
            own_usd -= sign * counted
            own_magnitude_usd += counted
            magnitude_usd += multiplier * restriction.limit
        left_unmet_usd = float(problem.unmet_cap @ np.minimum(0.0, unmet_usd - ROUNDING * unmet_magnitude_usd))

        # What serving the whole demand of a type brings and costs.
        spent_usd = problem.delay_penalty_usd + ((1 + duals.budget) * problem.token_storage_usd)[:, None]
        spent_usd += (duals.storage * problem.token_storage_gb)[:, None]
        spent_usd += delay[:, None] * universe.delay_s + error[:, None] * universe.error
        served = universe.largest_share > 0
        reward_usd = np.where(served, demand[:, None] - spent_usd, 0.0)
        earns = served & (demand > 0)[:, None]
        largest_usd = np.where(earns, demand[:, None] + spent_usd, 0.0) * universe.largest_share
        own_usd -= _knapsacks(universe, reward_usd, alive)
        own_magnitude_usd += largest_usd.sum(axis=0)[universe.configuration[alive]]
        own_usd -= ROUNDING * own_magnitude_usd

        pair = universe.pair[alive]
        best_usd = np.zeros(universe.pairs)  # 0 is to deploy none
        np.minimum.at(best_usd, pair, own_usd)
        deployed_usd = float(best_usd.sum())
        bound_usd += left_unmet_usd + deployed_usd
        bound_usd -= ROUNDING * (magnitude_usd - left_unmet_usd - deployed_usd)
        return bound_usd, bound_usd - best_usd[pair] + own_usd


def _knapsacks(universe: _Universe, reward_usd: FloatArray, alive: IntArray) -> FloatArray:
    """Shape (alive,): no less than what each option can earn within its two capacities."""
    reward = np.ascontiguousarray(reward_usd.T)[universe.configuration[alive]]
    load, kv, share = (array[alive] for array in universe.per_option)
    load_limit, kv_limit = universe.load_limit[alive], universe.replicas[alive].astype(np.float64)
    none = np.zeros(len(alive))

    def value(rows: IntArray | slice, of_load: FloatArray, of_kv: FloatArray) -> FloatArray:
        """The bound with these multipliers: the one line on which all rests."""
        left = reward[rows] - of_load[:, None] * load[rows] - of_kv[:, None] * kv[rows]
        held: FloatArray = of_load * load_limit[rows] + of_kv * kv_limit[rows]
        held += (share[rows] * np.maximum(0.0, left)).sum(axis=1)
        return held

    of_load, taken = _fill(reward, load, share, load_limit)
    keeps_kv = _at_most((kv * taken).sum(axis=1), kv_limit)
    earned = value(slice(None), of_load, none)
    rows = np.flatnonzero(~keeps_kv)
    if not len(rows):
        return earned
    of_kv, taken = _fill(reward[rows], kv[rows], share[rows], kv_limit[rows])
    keeps_load = _at_most((load[rows] * taken).sum(axis=1), load_limit[rows])
    earned[rows] = np.minimum(earned[rows], value(rows, none[rows], of_kv))
    rows, most = rows[~keeps_load], of_kv[~keeps_load]
    if len(rows):
        of_load, of_kv = _multipliers(
            reward[rows], load[rows], kv[rows], share[rows], load_limit[rows], kv_limit[rows], most
        )
        earned[rows] = np.minimum(earned[rows], value(rows, of_load, of_kv))
    return earned


def _fill(
    profit: FloatArray, weight: FloatArray, share: FloatArray, limit: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fill fractional knapsacks, one per row, in the order of profit per weight.

    Returns
    -------
    multiplier
        Shape (rows,): profit per weight where the knapsack is full, 0 if everything fits.
    taken
        Shape (rows, types): at most `share`.
    """
    wanted = np.where(profit > 0, share, 0.0)
    ratio = np.divide(profit, weight, where=weight > 0, out=np.full_like(profit, np.inf))
    order = np.argsort(np.where(wanted > 0, -ratio, np.inf), axis=1)
    size = np.take_along_axis(weight * wanted, order, axis=1)
    full = np.cumsum(size, axis=1)
    room = limit[:, None] - (full - size)
    part = np.divide(np.clip(room, 0.0, size), size, where=size > 0, out=np.ones_like(size))
    taken = np.empty_like(wanted)
    np.put_along_axis(taken, order, part, axis=1)
    cut = (full > limit[:, None]) & (size > 0)
    first = np.take_along_axis(order, cut.argmax(axis=1)[:, None], axis=1)
    multiplier = np.where(cut.any(axis=1), np.take_along_axis(ratio, first, axis=1)[:, 0], 0.0)
    return np.where(np.isfinite(multiplier), multiplier, 0.0), taken * wanted


def _multipliers(
    reward: FloatArray,
    load: FloatArray,
    kv: FloatArray,
    share: FloatArray,
    load_limit: FloatArray,
    kv_limit: FloatArray,
    most: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Good multipliers of both rows, for knapsacks that neither row alone decides.

    The bound is convex and piecewise linear in the multiplier of the KV row, with its least point between 0 and `most`
    (the multiplier of that row alone). Two tangents, one falling and one rising, cross below the curve; where they
    touch it, it is least.
    """

    def tangent(rows: IntArray, of_kv: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, slope and the best multiplier of the load."""
        profit = reward[rows] - of_kv[:, None] * kv[rows]
        of_load, taken = _fill(profit, load[rows], share[rows], load_limit[rows])
        slope = kv_limit[rows] - (kv[rows] * taken).sum(axis=1)
        return (profit * taken).sum(axis=1) + of_kv * kv_limit[rows], slope, of_load

    rows = np.arange(len(reward))
    low, high = np.zeros(len(reward)), most.copy()
    low_value, low_slope, low_load = tangent(rows, low)
    high_value, high_slope, high_load = tangent(rows, high)
    best_value = np.minimum(low_value, high_value)
    best_kv = np.where(low_value <= high_value, low, high)
    best_load = np.where(low_value <= high_value, low_load, high_load)
    for _ in range(MULTIPLIER_STEPS):
        rows = rows[(low_slope[rows] < 0) & (high_slope[rows] > 0) & (low[rows] < high[rows])]
        if not len(rows):
            break
        rise = high_value[rows] - low_value[rows] + low_slope[rows] * low[rows] - high_slope[rows] * high[rows]
        trial = np.clip(rise / (low_slope[rows] - high_slope[rows]), low[rows], high[rows])
        crossing = low_value[rows] + low_slope[rows] * (trial - low[rows])
        value, slope, of_load = tangent(rows, trial)
        better = value < best_value[rows]
        best_value[rows[better]], best_kv[rows[better]] = value[better], trial[better]
        best_load[rows[better]] = of_load[better]
        falls, rises = rows[slope < 0], rows[slope >= 0]
        low[falls], low_value[falls], low_slope[falls] = trial[slope < 0], value[slope < 0], slope[slope < 0]
        high[rises], high_value[rises], high_slope[rises] = trial[slope >= 0], value[slope >= 0], slope[slope >= 0]
        rows = rows[value > crossing + TOLERANCE * 1e-3 * np.abs(value)]
    return best_load, best_kv


# -- the tree ---------------------------------------------------------------------------------------------------------


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
    _refuse_if_any(_tree_complaints(certificate))  # before anything follows an index
    _refuse_if_any(_fit_complaints(problem, certificate))
    universe = _Universe(problem)
    target_usd = certificate.bound_usd
    root_bound_usd, examined, reason = -math.inf, 0, None
    waiting: list[tuple[int, tuple[_Restriction, ...], IntArray]] = [(0, (), np.arange(len(universe.configuration)))]
    while waiting and reason is None:
        n, path, alive = waiting.pop()
        node = certificate.nodes[n]
        examined += 1
        bound_usd, closed = -math.inf, False
        for _ in range(ROUNDS if node.duals is not None else 0):
            assert node.duals is not None
            bound_usd, with_option_usd = _bound(universe, node.duals, path, alive)
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
        above = _Restriction(count=count, limit=split.at + 1, above=True)
        below = _Restriction(count=count, limit=split.at, above=False)
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
