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

`universe.py` says which options are bounded, `bound.py` how, `verify.py` goes through the tree.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from simulator.errors import InputError
from simulator.planning.files import Count, Degree, NonNegative, Number, Positive, Share, read_json, write_text
from simulator.validation import StrictModel, validated

Counted = Literal["deployments", "gpus"]


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
    raw = validated(_Certificate, read_json(path), str(path))
    nodes = []
    for item in raw.nodes:
        duals = Duals(**item.duals.model_dump()) if item.duals else None
        split = None
        if item.split:
            group = Group(**item.split.group.model_dump())
            split = Split(group=group, at=item.split.at, below=item.split.below, above=item.split.above)
        nodes.append(Node(duals=duals, split=split))
    certificate = Certificate(problem=raw.problem, bound_usd=raw.bound_usd, nodes=tuple(nodes))
    if complaints := list(tree_complaints(certificate)):
        raise InputError(f"{path}: {complaint}" for complaint in complaints)
    return certificate


def certificate_to_dict(certificate: Certificate) -> dict[str, Any]:
    """The `tokenfleet-certificate/1` object of a certificate."""
    return {
        "format": "tokenfleet-certificate/1",
        "problem": certificate.problem,
        "bound_usd": certificate.bound_usd,
        "nodes": [_plain(node) for node in certificate.nodes],
    }


def _plain(value: Any) -> Any:
    """Values of a certificate as JSON has them: objects, lists and numbers."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value)} if is_dataclass(value) else value


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write a certificate, one node per line; gzipped if the name ends in .gz."""
    document = certificate_to_dict(certificate)
    nodes = ",\n  ".join(json.dumps(node, allow_nan=False) for node in document.pop("nodes"))
    head = json.dumps(document, indent=1, allow_nan=False).removesuffix("\n}")
    write_text(path, f'{head},\n "nodes": [\n  {nodes}\n ]\n}}\n')


def tree_complaints(certificate: Certificate) -> Iterator[str]:
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
