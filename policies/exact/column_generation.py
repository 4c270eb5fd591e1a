"""Column generation: the bound of one part of the plans, and what its relaxed solution opens.

The restricted master (`master.py`) mixes the uses found so far; at its prices better ones are sought until none is
worth adding or the bound is close enough. What no better plan opens at the prices of the best bound is then left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.exact.clock import Clock
from policies.exact.groups import Groups, Restriction, branching_groups
from policies.exact.lagrangian import Cover, Duals, Relaxed, RestrictionRows, relax
from policies.exact.master import Columns, Program
from policies.exact.options import Options
from policies.exact.pricing import best_use
from simulator.errors import RunError
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

BATCH = 30  # columns per round of column generation
START_COLUMNS = 300
CLOSE = 0.01  # of what is left to the cutoff: how far column generation goes before a node is branched on
LOOSEST = 0.1  # of the cost of a plan: what is left to the cutoff counts for no more
CLOSED = 1e-7  # of the cost of a plan: where it ends in any case
SMALLEST_GAIN = 1e-8  # of the cost of a plan: reduced costs above this are rounding (HiGHS: 1e-7 of a percent)
WHOLE = 1e-6
SMOOTHING = 0.2  # weight of the best duals so far in those that columns are priced at
ROOT_SMOOTHING = 0.7  # where there is no good start to stay close to
PENALTY_GROWTH = 100.0
LARGEST_PENALTY = 1e9  # times the cost of a plan
GUESS_FACTOR = 4.0
MOST_ROUNDS = 2000  # of column generation at one node: a guard against cycling


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What is known of a node: its bound, the duals that prove it, and the relaxed solution to branch on."""

    bound_usd: float
    relaxed: Relaxed  # over the options alive
    covers: tuple[Cover, ...]
    pairs: tuple[int, ...]
    alive: IntArray  # options that may still be open
    columns: IntArray  # of its restricted master
    open: FloatArray  # (O,) how far each option is open

    @property
    def duals(self) -> Duals:
        return self.relaxed.duals


class Pricer:
    """Column generation on one set of options."""

    def __init__(
        self,
        problem: PlanningProblem,
        options: Options,
        covers: list[Cover],
        groups: Groups | None,
        *,
        scale_usd: float,
    ) -> None:
        self.problem, self.options, self.groups = problem, options, groups
        self.all_covers = covers
        self._good = np.array([cover.good for cover in covers]).reshape(len(covers), len(options))
        self._unmet_factor = np.array([cover.unmet_factor for cover in covers])
        self._cover_type = np.array([cover.query_type for cover in covers], dtype=np.int64)
        self.scale_usd = scale_usd  # what a plan costs, roughly
        self.pool = Columns(problem, options, scale_usd)
        self.penalty_usd = 10.0 * scale_usd
        self.rounds = 0

    def rows(self, path: Sequence[Restriction]) -> RestrictionRows:
        if not path or self.groups is None:
            empty = np.zeros((0, len(self.options)))
            return RestrictionRows(counts=empty, sides=np.zeros(0), limits=np.zeros(0))
        return RestrictionRows(
            counts=self.groups.rows([r.group for r in path]),
            sides=np.array([1.0 if r.above else -1.0 for r in path]),
            limits=np.array([r.limit for r in path]),
        )

    def evaluate(
        self,
        path: Sequence[Restriction],
        alive: IntArray,
        cutoff_usd: float,
        clock: Clock,
        *,
        start: IntArray,
        parent: Evaluated | None = None,
    ) -> Evaluated:
        """Bound the plans over `alive` options that keep the restrictions of `path`: those of `parent` and one more."""
        rows = self.rows(path)
        for row, side, limit in zip(rows.counts, rows.sides, rows.limits, strict=True):
            if side < 0 and limit <= 0:
                alive = alive[row[alive] <= 0]
        options = self.options.take(alive)
        rows_alive = rows.take(alive)
        penalty_usd = self.penalty_usd
        last_round = self.rounds + MOST_ROUNDS
        program = Program(
            self.pool,
            start[np.isin(self.pool.option[start], alive)],
            restrictions=rows,
            covers=() if parent is None else parent.covers,
            pairs=() if parent is None else parent.pairs,
            penalty_usd=penalty_usd,
        )
        alive_covers: list[Cover] = []
        smoothing = 0.0
        opened = np.zeros(len(self.options))
        # The duals of the parent, with nothing for the new restriction, prove here what they prove there.
        best_covers = () if parent is None else parent.covers
        known = Duals.none(len(self.problem.query_types)) if parent is None else parent.duals
        unpriced = np.zeros(len(path) - len(known.restrictions))
        known = replace(known, restrictions=np.append(known.restrictions, unpriced))
        best = relax(self.problem, options, known, [cover.take(alive) for cover in best_covers], rows_alive)
        while True:
            try:
                objective_usd = program.solve()
            except RunError:  # the solver failed on this program: what is proven so far stands
                break
            used, missing = program.values()
            opened = program.open(used)
            if self._add_rows(program, opened):
                continue
            self.rounds += 1
            duals, pair_usd = program.duals()
            alive_covers += [cover.take(alive) for cover in program.covers[len(alive_covers) :]]
            # Prices between the last ones and the best so far swing less from round to round (Wentges smoothing).
            smooth = _mix(best.duals, duals, smoothing) if smoothing else duals
            relaxed = relax(self.problem, options, smooth, alive_covers, rows_alive)
            if relaxed.bound_usd > best.bound_usd:
                best, best_covers = relaxed, tuple(program.covers)
            if best.bound_usd >= cutoff_usd or clock.up() or self.rounds >= last_round:
                break
            left = objective_usd - best.bound_usd
            close = CLOSED * self.scale_usd
            if self._fractional(opened) and missing <= WHOLE:
                close = max(close, CLOSE * min(cutoff_usd - best.bound_usd, LOOSEST * self.scale_usd))
            per_pair = np.zeros(int(self.options.pair.max()) + 1)
            per_pair[program.pairs] = pair_usd
            gain = relaxed.reduced_usd - per_pair[options.pair]
            if smooth is not duals:
                gain = (
                    self._reduced_usd(options, relaxed.shares, duals, alive_covers, rows_alive) - per_pair[options.pair]
                )
            worth_adding = np.flatnonzero(gain < -SMALLEST_GAIN * self.scale_usd)
            if left > close and not len(worth_adding) and smooth is not duals:
                smoothing = 0.0
                continue
            if left <= close or not len(worth_adding):
                if missing <= WHOLE or penalty_usd >= LARGEST_PENALTY * self.scale_usd:
                    break
                penalty_usd *= PENALTY_GROWTH
                program.set_penalty(penalty_usd)
                continue
            smoothing = SMOOTHING if path else ROOT_SMOOTHING
            order = worth_adding[np.argsort(gain[worth_adding], kind="stable")]
            picked = options.first_of_pairs(order)[:BATCH]
            program.add(self.pool.add(alive[picked], relaxed.shares[:, picked]))
        alive, best = self._fix(alive, best, best_covers, rows, cutoff_usd)
        return Evaluated(
            bound_usd=best.bound_usd,
            relaxed=replace(best, shares=np.zeros((0, 0))),
            covers=best_covers,
            pairs=tuple(program.pairs),
            alive=alive,
            columns=program.chosen,
            open=opened,
        )

    def _fix(
        self, alive: IntArray, relaxed: Relaxed, covers: Sequence[Cover], rows: RestrictionRows, cutoff_usd: float
    ) -> tuple[IntArray, Relaxed]:
        """Leave out the options that no better plan opens; with fewer options the same duals may prove more."""
        for _ in range(3):
            keep = relaxed.forced_usd < cutoff_usd
            if relaxed.bound_usd >= cutoff_usd or keep.all():
                break
            alive = alive[keep]
            relaxed = relax(
                self.problem,
                self.options.take(alive),
                relaxed.duals,
                [cover.take(alive) for cover in covers],
                rows.take(alive),
            )
        return alive, relaxed

    def _add_rows(self, program: Program, opened: FloatArray) -> bool:
        """Rows that the solution breaks: pairs with more than one option, covers."""
        per_pair = np.bincount(self.options.pair, weights=opened)
        broken = [int(pair) for pair in np.flatnonzero(per_pair > 1 + WHOLE) if pair not in program.pairs]
        program.add_pairs(broken)
        some = np.flatnonzero(opened)
        values = self._good[:, some] @ opened[some] + self._unmet_factor * program.unmet()[self._cover_type]
        worst: dict[int, tuple[float, Cover]] = {}
        for n in np.flatnonzero(values < 1 - 1e-3):
            cover, value = self.all_covers[n], float(values[n])
            if value < worst.get(cover.query_type, (1.0, cover))[0]:
                worst[cover.query_type] = (value, cover)
        for _, cover in worst.values():
            program.add_cover(cover)
        return bool(broken or worst)

    def shrink(self, root: Evaluated, cutoff_usd: float) -> tuple["Pricer", Evaluated, IntArray]:
        """The pricer over the options that are left at the root, the root in its terms, and those options."""
        may_improve = root.relaxed.forced_usd < cutoff_usd
        left = root.alive[may_improve]
        options = self.options.take(left)
        new_index = np.full(len(self.options), -1)
        new_index[left] = np.arange(len(left))
        inner = Pricer(
            self.problem,
            options,
            [c.take(left) for c in self.all_covers],
            branching_groups(self.problem, options),
            scale_usd=self.scale_usd,
        )
        columns = np.flatnonzero(new_index[self.pool.option] >= 0)
        inner.pool.add(new_index[self.pool.option[columns]], self.pool.shares(columns))
        inner.rounds = self.rounds
        relaxed = replace(
            root.relaxed,
            reduced_usd=root.relaxed.reduced_usd[may_improve],
            forced_usd=root.relaxed.forced_usd[may_improve],
        )
        used = np.flatnonzero(np.isin(columns, root.columns))
        return (
            inner,
            replace(
                root,
                relaxed=relaxed,
                covers=tuple(cover.take(left) for cover in root.covers),
                pairs=tuple(pair for pair in root.pairs if pair in options.pair),
                alive=np.arange(len(left)),
                columns=used,
                open=root.open[left],
            ),
            left,
        )

    def first_columns(self) -> IntArray:
        """Uses to begin with: those that pay when each type is worth what it costs on its cheapest full deployment."""
        o, demand = self.options, self.amortised_usd()
        fixed_usd = o.fixed_usd + o.move_usd
        columns = []
        for factor in (1.2, 2.0):
            worth, shares = best_use(o, factor * demand[:, None] - o.serve_usd)
            reduced = fixed_usd - worth
            picked = o.first_of_pairs(np.argsort(reduced, kind="stable"))[:BATCH]
            columns.append(self.pool.add(picked, shares[:, picked]))
        return np.concatenate(columns)

    def amortised_usd(self) -> FloatArray:
        """Shape (types,): what each type costs where it pays only for the part of a deployment that it uses."""
        o, unmet_usd = self.options, self.problem.unmet_usd
        part = np.maximum(o.load, o.kv)
        cost_usd = np.where(o.largest_share >= 1, (o.fixed_usd + o.move_usd) * part + o.serve_usd, np.inf).min(axis=1)
        return np.minimum(np.where(np.isfinite(cost_usd), cost_usd, unmet_usd), unmet_usd)

    def guess(self) -> Relaxed:
        """Prices before any program is solved: each type worth a few times its amortised cost.

        Amortised, because to charge the whole rent of a deployment to the type that opens it is what leads greedy
        orders astray; a few times, because most deployments do not fill up.
        """
        demand = GUESS_FACTOR * self.amortised_usd()
        duals = replace(Duals.none(len(demand)), demand=demand)
        return relax(self.problem, self.options, duals, [], self.rows(()))

    def _reduced_usd(
        self, options: Options, shares: FloatArray, duals: Duals, covers: Sequence[Cover], rows: RestrictionRows
    ) -> FloatArray:
        """Shape (O,): reduced cost at `duals` of using each option with these shares (types, O)."""
        p = self.problem
        per_type = duals.demand - duals.budget * p.token_storage_usd - duals.storage * p.token_storage_gb
        reward = per_type[:, None] - options.serve_usd
        reward -= duals.delay[:, None] * options.delay_s + duals.error[:, None] * options.error
        reduced = (1 + duals.budget) * options.fixed_usd + options.move_usd + duals.storage * options.fixed_gb
        reduced -= (reward * shares).sum(axis=0)
        for cover, price in zip(covers, duals.covers, strict=True):
            if price > 0:
                reduced -= price * cover.good
        return reduced - (duals.restrictions * rows.sides) @ rows.counts

    @staticmethod
    def _fractional(opened: FloatArray) -> bool:
        return bool((np.abs(opened - np.round(opened)) > WHOLE).any())

    def starting_columns(self, evaluated: Evaluated, alive: IntArray) -> IntArray:
        """Columns of the pool that look best at the duals of a node."""
        duals = evaluated.duals
        totals = np.array([duals.budget, duals.storage]) * self.pool.total_scale
        delay, error = duals.delay * self.pool.delay_scale, duals.error * self.pool.error_scale
        price = np.concatenate([duals.demand, -delay, -error, -totals])
        reduced = self.pool.cost_usd - self.pool.body @ price
        for cover, usd in zip(evaluated.covers, duals.covers, strict=True):
            if usd > 0:
                reduced -= usd * cover.good[self.pool.option]
        reduced[~np.isin(self.pool.option, alive)] = np.inf
        best = np.argsort(reduced, kind="stable")[:START_COLUMNS]
        best = best[np.isfinite(reduced[best])]
        return np.union1d(best, evaluated.columns[np.isin(self.pool.option[evaluated.columns], alive)])


def _mix(old: Duals, new: Duals, weight: float) -> Duals:
    """Duals between two; covers that the old ones do not know yet count as zero there."""
    covers = np.zeros_like(new.covers)
    covers[: len(old.covers)] = old.covers
    return Duals(
        demand=weight * old.demand + (1 - weight) * new.demand,
        delay=weight * old.delay + (1 - weight) * new.delay,
        error=weight * old.error + (1 - weight) * new.error,
        budget=weight * old.budget + (1 - weight) * new.budget,
        storage=weight * old.storage + (1 - weight) * new.storage,
        covers=weight * covers + (1 - weight) * new.covers,
        restrictions=weight * old.restrictions + (1 - weight) * new.restrictions,
    )
