"""Optimal routing over a fixed fleet: the linear program that is left once the replicas are chosen.

It is the routing step of AGH and stage 2 of the paper (placement fixed, delay and error inflated). Hundreds of these are
solved in one plan, each with a few hundred variables, so the program goes straight to HiGHS through `highspy`: a solve
takes about a millisecond, where Pyomo would take some ten times as long to build and translate the same model.

A fresh solver with fixed options serves every call, so that a result depends on the arguments alone.
"""

from dataclasses import dataclass

import highspy
import numpy as np

from simulator.plan import PlanArrays
from simulator.problem import BoolArray, CapacityRows, FloatArray, IntArray, PlanningProblem

# Every limit is scaled to one before HiGHS sees it, so these are relative: well inside the 1e-6 that a plan may be off.
FEASIBILITY_TOLERANCE = 1e-9
EXCESS_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the demand goes in a fleet of D deployments.

    Attributes
    ----------
    deployed, replicas
        Shape (D,): configuration of each deployment and its replicas.
    share
        Shape (types, D).
    unmet
        Shape (types,).
    excess
        How far the unmet shares exceed their caps, summed over types; zero unless the caps were elastic.
    cost_usd
        Objective of the period, without any price on the excess.
    """

    deployed: IntArray
    replicas: IntArray
    share: FloatArray
    unmet: FloatArray
    excess: float
    cost_usd: float

    def arrays(self, problem: PlanningProblem) -> PlanArrays:
        replicas, share = np.zeros(len(problem.configurations), dtype=np.int64), np.zeros(problem.delay_s.shape)
        replicas[self.deployed] = self.replicas
        share[:, self.deployed] = self.share
        return PlanArrays(replicas, share, self.unmet)


def route(
    problem: PlanningProblem, replicas: IntArray, *, delay_factor: float = 1.0, error_factor: float = 1.0
) -> PlanArrays | None:
    """Route the demand at least cost over a fixed fleet [paper: routing with the placement fixed, stage 2].

    Parameters
    ----------
    problem
        Not changed.
    replicas
        Shape (configurations,): replicas of each configuration. Whether they respect `max_replicas` and the rule of one
        configuration per (model, tier) is the caller's business.
    delay_factor, error_factor
        The true delay and error, relative to the nominal ones. They scale the delay and error rows and the delay
        penalty. Under `paper` capacity rows `delay_factor` scales the KV rows as well, because those count tokens in
        flight by Little's law; `batching` rows belong to an operating point and stay as they are.

    Returns
    -------
    PlanArrays or None
        The cheapest routing. None if no routing keeps every constraint: the rent and the weights alone break the
        budget or the storage, or an unmet cap below one cannot be kept.
    """
    deployed = np.flatnonzero(replicas)
    routing = route_deployments(
        problem, deployed, replicas[deployed], delay_factor=delay_factor, error_factor=error_factor
    )
    return None if routing is None else routing.arrays(problem)


def route_deployments(
    problem: PlanningProblem,
    deployed: IntArray,
    replicas: IntArray,
    *,
    delay_factor: float = 1.0,
    error_factor: float = 1.0,
    excess_usd: float | None = None,
) -> Routing | None:
    """`route` in terms of D deployments, without arrays over all configurations.

    With `excess_usd` the unmet caps are elastic: each unit of unmet share beyond its cap is priced at that much, so that
    a search can tell a fleet that nearly keeps the caps from one that is far off.
    """
    a = deployed
    money_usd = float(problem.budget_usd - problem.rent_usd[a] @ replicas - problem.model_storage_usd[a].sum())
    storage_gb = float(problem.storage_capacity_gb - problem.model_storage_gb[a].sum())
    if _overdrawn(money_usd, problem.budget_usd) or _overdrawn(storage_gb, problem.storage_capacity_gb):
        return None

    kv_factor = delay_factor if problem.capacity_rows is CapacityRows.PAPER else 1.0
    every = np.ones(len(a))
    cost_usd = delay_factor * problem.delay_penalty_usd[:, a] + problem.token_storage_usd[:, None]
    program = _Program(
        cost_usd=cost_usd,
        allowed=problem.allowed[:, a],
        use=np.stack(
            [
                delay_factor * problem.delay_s[:, a],
                error_factor * problem.error[:, a],
                problem.load[:, a],
                kv_factor * problem.kv[:, a],
                np.multiply.outer(problem.token_storage_gb, every),
                np.multiply.outer(problem.token_storage_usd, every),
            ],
            axis=2,
        ),
        limit=np.concatenate(
            [
                problem.delay_slo_s,
                problem.error_slo,
                problem.cap[a] * replicas,
                replicas,
                [max(storage_gb, 0.0), max(money_usd, 0.0)],
            ]
        ),
        unmet_usd=problem.unmet_usd,
        unmet_cap=problem.unmet_cap,
        excess_usd=excess_usd,
    )
    solution = program.solve()
    if solution is None:
        return None
    share, unmet, excess = solution
    fixed_usd = problem.rent_usd[a] @ replicas + problem.model_storage_usd[a].sum()
    routing_usd = (cost_usd * share).sum() + problem.unmet_usd @ unmet
    return Routing(a, replicas, share, unmet, excess, float(fixed_usd + routing_usd))


def _overdrawn(left: float, whole: float) -> bool:
    return left < -FEASIBILITY_TOLERANCE * max(whole, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """The linear program over I types and D deployments.

    Columns: the shares (i, d) row by row, then the unmet shares, then what exceeds the unmet caps. Rows: I demands; I
    delays, I errors, D loads, D KV caches, the storage and the money, each `use . share <= limit`.
    """

    cost_usd: FloatArray  # (I, D)
    allowed: BoolArray  # (I, D)
    use: FloatArray  # (I, D, 6): what a share takes of each of its six limits
    limit: FloatArray  # (2 I + 2 D + 2,)
    unmet_usd: FloatArray  # (I,)
    unmet_cap: FloatArray  # (I,)
    excess_usd: float | None

    def solve(self) -> tuple[FloatArray, FloatArray, float] | None:
        """Shares (I, D), unmet shares (I,) and the sum of what exceeds the unmet caps; None if infeasible."""
        solver = _solver()
        solver.passModel(self._model())
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        types, deployments = self.cost_usd.shape
        value = np.clip(np.array(solver.getSolution().col_value, dtype=np.float64), 0.0, 1.0)
        share, unmet, excess = np.split(value, [types * deployments, types * deployments + types])
        over = float(excess.sum())
        return share.reshape(types, deployments), unmet + excess, over if over > EXCESS_TOLERANCE else 0.0

    def _model(self) -> highspy.HighsLp:
        types, deployments = self.cost_usd.shape
        use = np.where(self.allowed[:, :, None], self.use, 0.0)
        kept = self._can_bind(use)
        number = np.cumsum(kept) - 1 + types  # the row of each limit that is kept, after the demand rows
        scale = np.where(self.limit > 0, self.limit, 1.0)
        scale[~kept] = 1.0

        # Entries column by column: the demand row of the type, then its limits.
        limit_of = self._limit_of()
        entry = np.concatenate([np.ones((types, deployments, 1)), use / scale[limit_of]], axis=2)
        demand_row = np.broadcast_to(np.arange(types)[:, None, None], (types, deployments, 1))
        row = np.concatenate([demand_row, number[limit_of]], axis=2)
        present = entry != 0
        present[:, :, 1:] &= kept[limit_of]
        per_column = np.concatenate([present.sum(axis=2).ravel(), np.ones(2 * types, dtype=np.int64)])
        elastic = self.excess_usd is not None

        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = types * deployments + 2 * types, types + int(kept.sum())
        model.col_cost_ = np.concatenate(
            [self.cost_usd.ravel(), self.unmet_usd, self.unmet_usd + (self.excess_usd or 0.0)]
        )
        model.col_lower_ = np.zeros(model.num_col_)
        excess_cap = 1 - self.unmet_cap if elastic else np.zeros(types)
        model.col_upper_ = np.concatenate([self.allowed.ravel().astype(np.float64), self.unmet_cap, excess_cap])
        ones = np.ones(types)
        model.row_lower_ = np.concatenate([ones, np.full(model.num_row_ - types, -highspy.kHighsInf)])
        model.row_upper_ = np.concatenate([ones, (self.limit / scale)[kept]])
        model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        model.a_matrix_.start_ = np.concatenate([[0], np.cumsum(per_column)])
        model.a_matrix_.index_ = np.concatenate([row[present], np.arange(types), np.arange(types)])
        model.a_matrix_.value_ = np.concatenate([entry[present], np.ones(2 * types)])
        return model

    def _limit_of(self) -> IntArray:
        """Index into `limit` of each of the six uses of a share, shape (I, D, 6)."""
        types, deployments = self.cost_usd.shape
        i, d = np.indices((types, deployments))
        storage = np.full((types, deployments), 2 * types + 2 * deployments)
        return np.stack([i, types + i, 2 * types + d, 2 * types + deployments + d, storage, storage + 1], axis=2)

    def _can_bind(self, use: FloatArray) -> BoolArray:
        """Which limits some routing could break. Most cannot be broken, and such rows only cost time."""
        most = [
            use[:, :, :2].max(axis=1, initial=0.0).T.ravel(),
            use[:, :, 2:4].sum(axis=0).T.ravel(),
            use[:, :, 4:].max(axis=1, initial=0.0).sum(axis=0),
        ]
        return np.concatenate(most) > self.limit


def _solver() -> highspy.Highs:
    solver = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", 0),
        ("presolve", "off"),  # halves the time at this size
        ("simplex_scale_strategy", 0),  # the rows are scaled already
        ("primal_feasibility_tolerance", FEASIBILITY_TOLERANCE),
    ):
        solver.setOptionValue(option, value)
    return solver
