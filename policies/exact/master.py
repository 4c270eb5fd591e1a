"""The restricted master: a linear program over the uses of deployments found so far.

A column is a deployment option with shares (one vertex, or a mix of vertices, of its knapsack); the program mixes
columns so that demand, delay, error, budget and storage hold. Its duals price all other uses (`lagrangian.relax`), the
best of which become columns, until none is worth adding: column generation.

The program is built anew for each node of the tree with only the columns and rows that matter there, which takes a few
milliseconds; keeping one large program for all nodes was five to ten times slower. It goes straight to HiGHS through
`highspy`, because thousands of warm-started solves of some hundred rows are needed, and Pyomo takes longer to hand one
over than HiGHS to solve it.
"""

from collections.abc import Sequence

import highspy
import numpy as np

from policies.exact.lagrangian import Cover, Duals, RestrictionRows
from policies.exact.options import Options
from policies.highs import LinearProgram, failure, new_solver, unit_of
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

INFINITY = highspy.kHighsInf
PRIMAL_SIMPLEX = 4  # after columns are added the basis is primal feasible; HiGHS would choose the dual simplex
NO_LIMIT = 2**31 - 1  # simplex iterations


class Columns:
    """The pool: uses of options, shared by all nodes. Rows of `body`: demand, delay, error, budget, storage, scaled."""

    def __init__(self, problem: PlanningProblem, options: Options, scale_usd: float) -> None:
        self.problem, self.options = problem, options
        self.types = len(problem.query_types)
        # HiGHS has absolute tolerances: money in units of a typical plan's percent, limits in units of themselves.
        self.scale_usd = scale_usd / 100
        self.delay_scale = unit_of(problem.delay_slo_s)
        self.error_scale = unit_of(problem.error_slo)
        self.total_scale = unit_of(np.array([problem.budget_usd, problem.storage_capacity_gb]))
        self.size = 0
        self._option = np.zeros(1024, dtype=np.int64)
        self._cost = np.zeros(1024)
        self._body = np.zeros((1024, 3 * self.types + 2))

    @property
    def option(self) -> IntArray:
        return self._option[: self.size]

    @property
    def cost_usd(self) -> FloatArray:
        return self._cost[: self.size]

    @property
    def body(self) -> FloatArray:
        return self._body[: self.size]

    def add(self, options: IntArray, shares: FloatArray) -> IntArray:
        """Append columns for `options` (n,) with `shares` (types, n); returns their indices."""
        n, o, p = len(options), self.options, self.problem
        while self.size + n > len(self._cost):
            self._option = np.concatenate([self._option, np.zeros_like(self._option)])
            self._cost = np.concatenate([self._cost, np.zeros_like(self._cost)])
            self._body = np.concatenate([self._body, np.zeros_like(self._body)])
        new = np.arange(self.size, self.size + n)
        self.size += n
        self._option[new] = options
        self._cost[new] = o.fixed_usd[options] + o.move_usd[options] + (o.serve_usd[:, options] * shares).sum(axis=0)
        types = self.types
        body = np.empty((n, 3 * types + 2))
        body[:, :types] = shares.T
        body[:, types : 2 * types] = (o.delay_s[:, options] * shares).T / self.delay_scale
        body[:, 2 * types : 3 * types] = (o.error[:, options] * shares).T / self.error_scale
        body[:, -2] = (o.fixed_usd[options] + p.token_storage_usd @ shares) / self.total_scale[0]
        body[:, -1] = (o.fixed_gb[options] + p.token_storage_gb @ shares) / self.total_scale[1]
        self._body[new] = body
        return new

    def shares(self, columns: IntArray) -> FloatArray:
        """Shape (types, n)."""
        return self._body[columns, : self.types].T

    def keep(self, columns: IntArray) -> None:
        """Forget all others."""
        n = len(columns)
        self._option[:n], self._cost[:n] = self._option[columns], self._cost[columns]
        self._body[:n] = self._body[columns]
        self.size = n


class Program:
    """One restricted master in HiGHS.

    Columns: the unmet shares, what is unmet beyond the caps and what restrictions lack (both at `penalty_usd` each, so
    that there is always a solution), then uses from the pool. Rows: those of the pool's body, the restrictions, then
    covers and pairs in the order in which they were needed, then, only to probe branchings, free rows.
    """

    def __init__(
        self,
        pool: Columns,
        chosen: IntArray,
        *,
        restrictions: RestrictionRows,
        covers: Sequence[Cover] = (),
        pairs: Sequence[int] = (),
        free: FloatArray | None = None,
        penalty_usd: float,
    ) -> None:
        self.pool, self.chosen, self.restrictions = pool, chosen, restrictions
        self.covers: list[Cover] = []
        self.pairs: list[int] = []
        self._cover_rows: list[int] = []
        self._pair_rows: list[int] = []
        problem, types, lacking = pool.problem, pool.types, len(restrictions)
        self.head = 2 * types + lacking
        self._by_option = restrictions.counts
        unmet_usd, unbounded = problem.unmet_usd, np.full(2 * types + 2, -INFINITY)
        program = LinearProgram()
        unmet = program.columns(problem.unmet_cap, unmet_usd / pool.scale_usd)
        beyond = program.columns(1.0 - problem.unmet_cap, (unmet_usd + penalty_usd) / pool.scale_usd)
        lack = program.columns(np.full(lacking, INFINITY), np.full(lacking, penalty_usd) / pool.scale_usd)
        use = program.columns(np.full(len(chosen), INFINITY), pool.cost_usd[chosen] / pool.scale_usd)
        dense, per_type, above = self._dense(chosen), np.arange(types), restrictions.sides > 0
        column, row = np.nonzero(dense)
        totals = np.array([problem.budget_usd, problem.storage_capacity_gb])
        limits = [_scaled_limit(limit) for limit in (problem.delay_slo_s, problem.error_slo, totals)]
        program.rows(
            (per_type, unmet, 1.0),
            (per_type, beyond, 1.0),
            (3 * types + 2 + np.arange(lacking), lack, restrictions.sides),
            (row, use[column], dense[column, row]),
            at_least=np.concatenate([np.ones(types), unbounded, np.where(above, restrictions.limits, -INFINITY)]),
            at_most=np.concatenate([np.ones(types), *limits, np.where(above, INFINITY, restrictions.limits)]),
        )
        self.solver = new_solver(presolve="off")
        program.hand_to(self.solver)
        for cover in covers:
            self.add_cover(cover)
        self.add_pairs(pairs)
        self.first_free = self.solver.getNumRow()
        for count in () if free is None else free:
            self._add_row(-INFINITY, INFINITY, count, {})

    def _dense(self, chosen: IntArray) -> FloatArray:
        """Shape (columns, rows)."""
        return np.hstack([self.pool.body[chosen], self._by_option[:, self.pool.option[chosen]].T])

    def add(self, new: IntArray) -> None:
        """Take columns of the pool into the program."""
        dense, n = self._dense(new), len(new)
        column, row = np.nonzero(dense)
        start = np.searchsorted(column, np.arange(n)).astype(np.int32)
        cost, upper = self.pool.cost_usd[new] / self.pool.scale_usd, np.full(n, INFINITY)
        self.solver.addCols(n, cost, np.zeros(n), upper, len(row), start, row.astype(np.int32), dense[column, row])
        self.chosen = np.concatenate([self.chosen, new])
        self.solver.setOptionValue("simplex_strategy", PRIMAL_SIMPLEX)

    def add_pairs(self, pairs: Sequence[int]) -> None:
        """At most one option of each of these (model, tier)."""
        for pair in pairs:
            self._pair_rows.append(self.solver.getNumRow())
            self.pairs.append(int(pair))
            self._add_row(-INFINITY, 1.0, (self.pool.options.pair == pair).astype(np.float64), {})

    def add_cover(self, cover: Cover) -> None:
        self._cover_rows.append(self.solver.getNumRow())
        self.covers.append(cover)
        i = cover.query_type
        head = {i: cover.unmet_factor, self.pool.types + i: cover.unmet_factor}
        self._add_row(1.0, INFINITY, cover.good.astype(np.float64), head)

    def _add_row(self, lower: float, upper: float, by_option: FloatArray, head: dict[int, float]) -> None:
        values = by_option[self.pool.option[self.chosen]]
        at = np.flatnonzero(values)
        index = np.concatenate([np.array(list(head), dtype=np.int64), at + self.head]).astype(np.int32)
        value = np.concatenate([np.array(list(head.values()), dtype=np.float64), values[at]])
        self.solver.addRow(lower, upper, len(index), index, value)
        self._by_option = np.vstack([self._by_option, by_option])

    def solve(self) -> float:
        """The objective in USD; the solution is then in `values` and `duals`."""
        self.solver.run()
        status = self.solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            # A warm start can lead astray numerically; from scratch with presolve it is another calculation.
            self.solver.clearSolver()
            self.solver.setOptionValue("presolve", "choose")
            self.solver.run()
            self.solver.setOptionValue("presolve", "off")
            status = self.solver.getModelStatus()
            if status != highspy.HighsModelStatus.kOptimal:
                raise failure(self.solver, "a master program")
        return float(self.solver.getInfo().objective_function_value) * self.pool.scale_usd

    def values(self) -> tuple[FloatArray, float]:
        """How much of each use is chosen, shape (columns,), and what is missing beyond unmet caps and restrictions."""
        value = np.array(self.solver.getSolution().col_value)
        return value[self.head :], float(value[self.pool.types : self.head].sum())

    def unmet(self) -> FloatArray:
        """Shape (types,): unmet shares of the solution, with what is beyond the caps."""
        value = np.array(self.solver.getSolution().col_value)
        types = self.pool.types
        return np.asarray(value[:types] + value[types : 2 * types])

    def set_penalty(self, penalty_usd: float) -> None:
        """Change what a unit beyond the unmet caps and restrictions costs."""
        types = self.pool.types
        cost_usd = np.full(self.head - types, penalty_usd)
        cost_usd[:types] += self.pool.problem.unmet_usd
        index = np.arange(types, self.head).astype(np.int32)
        self.solver.changeColsCost(len(index), index, cost_usd / self.pool.scale_usd)

    def open(self, used: FloatArray) -> FloatArray:
        """Shape (O,): how far each option is open, given how much of each column is used."""
        option = self.pool.option[self.chosen]
        return np.bincount(option, weights=used, minlength=len(self.pool.options)).astype(np.float64)

    def duals(self) -> tuple[Duals, FloatArray]:
        """The duals of the relaxed rows, with the signs that the bound needs, and those of the pair rows (pairs,)."""
        row = np.array(self.solver.getSolution().row_dual) * self.pool.scale_usd
        types = self.pool.types
        at = 3 * types + 2
        duals = Duals(
            demand=row[:types],
            delay=np.maximum(0.0, -row[types : 2 * types]) / self.pool.delay_scale,
            error=np.maximum(0.0, -row[2 * types : 3 * types]) / self.pool.error_scale,
            budget=max(0.0, -row[3 * types] / self.pool.total_scale[0]),
            storage=max(0.0, -row[3 * types + 1] / self.pool.total_scale[1]),
            restrictions=np.maximum(0.0, row[at : at + len(self.restrictions)] * self.restrictions.sides),
            covers=np.maximum(0.0, row[self._cover_rows]),
        )
        return duals, np.minimum(0.0, row[self._pair_rows])

    def probe(self, row: int, lower: float, upper: float, basis: highspy.HighsBasis, iterations: int) -> float:
        """Objective [USD] with other bounds on a free row, after at most so many iterations from `basis`."""
        solver = self.solver
        solver.changeRowBounds(self.first_free + row, lower, upper)
        solver.setBasis(basis)
        solver.setOptionValue("simplex_iteration_limit", iterations)
        solver.run()
        status = solver.getModelStatus()
        value = float(solver.getInfo().objective_function_value) * self.pool.scale_usd
        solver.setOptionValue("simplex_iteration_limit", NO_LIMIT)
        solver.changeRowBounds(self.first_free + row, -INFINITY, INFINITY)
        return INFINITY if status == highspy.HighsModelStatus.kInfeasible else value


def _scaled_limit(limit: FloatArray) -> FloatArray:
    return np.where(np.isfinite(limit), np.where(limit > 0, 1.0, 0.0), INFINITY)
