"""Branch and price: split the plans by sums over groups, bound each part by column generation, fix what cannot improve.

Best bound first, so that the proven bound is as high as it can be whenever the time is up.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.exact.clock import Clock
from policies.exact.column_generation import WHOLE, Evaluated, Pricer
from policies.exact.groups import Restriction
from policies.exact.lagrangian import Cover, Duals
from policies.exact.master import INFINITY, Program
from simulator.errors import RunError

PROBES = 12  # branchings that are tried on the restricted master
PROBE_ITERATIONS = 100
NODE_EFFORT = 20  # fleets that could be routed in the time of a node
PATIENCE = 6  # probes without a better one


@dataclass(slots=True, kw_only=True)
class Node:
    """A node of the tree, as the certificate will tell it."""

    path: tuple[Restriction, ...]
    duals: Duals | None = None
    covers: tuple[Cover, ...] = ()
    split: tuple[int, int, int, int] | None = None  # group, at, index below, index above


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What the tree came to."""

    bound_usd: float
    nodes: list[Node]
    done: bool
    explored: int


class Tree:
    """The search below the root."""

    def __init__(self, pricer: Pricer, root: Evaluated, clock: Clock, cutoff_usd: float) -> None:
        if pricer.groups is None:
            raise ValueError("a tree needs groups to branch on")
        self.pricer, self.clock, self.groups = pricer, clock, pricer.groups
        self.cutoff_usd = cutoff_usd
        self.nodes = [Node(path=(), duals=root.duals, covers=root.covers)]
        self.gain: dict[int, float] = {}
        self.explored = 0
        self.root = root

    def search(self, visit: Callable[[Evaluated], float], tell: Callable[[float], None]) -> Outcome:
        """Explore until nothing is left below the cutoff or the clock says stop.

        Parameters
        ----------
        visit
            Called with each evaluated node; looks for plans near it and returns the new cutoff.
        tell
            Called with the proven bound.
        """
        order = itertools.count()
        heap: list[tuple[float, int, int, Evaluated]] = []
        stuck: list[float] = []
        if self.root.bound_usd < self.cutoff_usd:
            heapq.heappush(heap, (self.root.bound_usd, next(order), 0, self.root))
        while heap and heap[0][0] < self.cutoff_usd:
            if self.clock.up() or self.explored >= self.clock.max_nodes:
                break
            bound_usd, _, index, node = heapq.heappop(heap)
            tell(min([bound_usd, *stuck]))
            self.explored += 1
            self.clock.spent += NODE_EFFORT
            path = self.nodes[index].path
            choice = self._choose(path, node)
            if choice is None:
                stuck.append(bound_usd)
                continue
            group, at = choice
            children = []
            for above in (False, True):
                below_path = (*path, Restriction(group, at, above))
                start = self.pricer.starting_columns(node, node.alive)
                child = self.pricer.evaluate(
                    below_path,
                    node.alive,
                    self.cutoff_usd,
                    self.clock,
                    start=start,
                    parent=node,
                )
                children.append(len(self.nodes))
                self.nodes.append(Node(path=below_path, duals=child.duals, covers=child.covers))
                bound = max(child.bound_usd, bound_usd)  # they differ by rounding at most
                if bound < self.cutoff_usd:
                    self.cutoff_usd = min(self.cutoff_usd, visit(child))
                if bound < self.cutoff_usd:
                    heapq.heappush(heap, (bound, next(order), children[-1], child))
            self.nodes[index].split = (group, at, children[0], children[1])
        bounds = [*stuck, *(entry[0] for entry in heap)]
        lowest = min([self.cutoff_usd, *bounds])
        return Outcome(bound_usd=lowest, nodes=self.nodes, done=lowest >= self.cutoff_usd, explored=self.explored)

    def _choose(self, path: Sequence[Restriction], node: Evaluated) -> tuple[int, int] | None:
        """The branching whose weaker side raises the bound most, by probing the restricted master."""
        opened = np.where(node.open > WHOLE, node.open, 0.0)
        sums = self.groups.count @ opened
        fraction = sums - np.floor(sums + WHOLE)
        candidates = np.flatnonzero(fraction > 10 * WHOLE)
        if not len(candidates):
            return None
        typical = float(np.mean(list(self.gain.values()))) if self.gain else 1.0
        distance = np.minimum(fraction, 1 - fraction)
        guess = np.array([self.gain.get(int(g), 2 * typical * distance[g]) for g in candidates])
        candidates = candidates[np.argsort(-guess, kind="stable")][:PROBES]
        program = Program(
            self.pricer.pool,
            node.columns[np.isin(self.pricer.pool.option[node.columns], node.alive)],
            restrictions=self.pricer.rows(path),
            covers=node.covers,
            pairs=node.pairs,
            free=self.groups.rows(candidates),
            penalty_usd=self.pricer.penalty_usd,
        )
        try:
            base_usd = program.solve()
        except RunError:
            return int(candidates[0]), int(np.floor(sums[candidates[0]] + WHOLE))
        basis = program.solver.getBasis()
        best, since = (-1.0, int(candidates[0])), 0
        for row, group in enumerate(candidates):
            at = np.floor(sums[group] + WHOLE)
            least = 1e-6 * self.pricer.scale_usd
            gains = [
                max(least, min(program.probe(row, lower, upper, basis, PROBE_ITERATIONS), self.cutoff_usd) - base_usd)
                for lower, upper in ((-INFINITY, at), (at + 1, INFINITY))
            ]
            score = 0.83 * min(gains) + 0.17 * max(gains)
            seen = self.gain.get(int(group))
            self.gain[int(group)] = score if seen is None else 0.6 * score + 0.4 * seen
            if score > best[0]:
                best, since = (score, int(group)), 0
            else:
                since += 1
            if since >= PATIENCE or self.clock.up():
                break
        return best[1], int(np.floor(sums[best[1]] + WHOLE))
