"""Whole deployments as yes-or-no decisions: a configuration with a number of replicas.

Choosing among *deployment options* d = (configuration a, replicas r) states the planning problem without integers other
than 0 and 1: z_d = 1 deploys r replicas of a, its capacity is a constant, and at most one option of a (model, tier) is
open. Two kinds of options are left out because no plan needs them:

- more replicas than the whole demand could use: each type brings at most `largest_share` of its demand, so `ceil` of
  the larger of sum_i load x / cap and sum_i kv x always suffices;
- dominated options: another option of the *same* (model, tier) costs no more, is as fast and as good for every type and
  has the capacity, so it can take the place of the first in any plan (both are never open together).
"""

from dataclasses import dataclass

import numpy as np

from policies.heuristics.coverage import largest_share
from policies.heuristics.dominance import replicas_filled
from policies.heuristics.moving import Moving
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

ROUNDING = 1e-9  # relative: what floating point may add to a quotient that is whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """O deployment options, in order of configuration and replicas.

    Attributes
    ----------
    configuration, replicas, pair
        Shape (O,): index of the configuration, replicas of it, number of its (model, tier).
    fixed_usd, fixed_gb
        Shape (O,): rent and weights storage of the period, storage of the weights.
    move_usd
        Shape (O,): what opening it adds to the cost of leaving the fleet in force; no matter of the budget.
    gpus
        Shape (O,): TP x PP x replicas.
    largest_share
        Shape (types, O): the most that one type may send there, by its delay and error limits alone.
    load, kv
        Shape (types, O): share of the option's capacity that the whole demand of the type would use; both <= 1 in sum.
    serve_usd, delay_s, error
        Shape (types, O): cost of serving the whole demand there; mean delay; expected error.
    """

    configuration: IntArray
    replicas: IntArray
    pair: IntArray
    fixed_usd: FloatArray
    move_usd: FloatArray
    fixed_gb: FloatArray
    gpus: IntArray
    largest_share: FloatArray
    load: FloatArray
    kv: FloatArray
    serve_usd: FloatArray
    delay_s: FloatArray
    error: FloatArray

    def __len__(self) -> int:
        return len(self.configuration)

    def first_of_pairs(self, order: IntArray) -> IntArray:
        """Of the options in `order`, the first of each (model, tier), in the same order."""
        _, first = np.unique(self.pair[order], return_index=True)
        return order[np.sort(first)]

    def take(self, chosen: IntArray | BoolArray) -> "Options":
        return Options(**{name: getattr(self, name)[..., chosen] for name in self.__slots__})


def deployment_options(problem: PlanningProblem, moving: Moving | None = None) -> Options:
    """Every option that some plan may need, with what it costs to move to it (nothing, if nobody says)."""
    moving = Moving.of(problem, None) if moving is None else moving
    # Without any capacity only what needs none is served.
    share = np.where((problem.cap > 0) | (problem.load <= 0), largest_share(problem), 0.0)
    usable = share.any(axis=0)
    cap = np.where(problem.cap > 0, problem.cap, 1.0)
    filled = np.ceil(replicas_filled(problem, share) - ROUNDING)
    useful = np.clip(filled, 1, problem.max_replicas).astype(np.int64) * usable
    a = np.repeat(np.arange(len(useful)), useful)
    r = np.arange(len(a)) - np.repeat(np.cumsum(useful) - useful, useful) + 1
    options = Options(
        configuration=a,
        replicas=r,
        pair=problem.pair_index[a],
        fixed_usd=problem.rent_usd[a] * r + problem.model_storage_usd[a],
        move_usd=moving.option_usd(a, r),
        fixed_gb=problem.model_storage_gb[a],
        gpus=problem.gpus[a] * r,
        largest_share=share[:, a],
        load=problem.load[:, a] / (cap[a] * r),
        kv=problem.kv[:, a] / r,
        serve_usd=problem.delay_penalty_usd[:, a] + problem.token_storage_usd[:, None],
        delay_s=problem.delay_s[:, a],
        error=problem.error[:, a],
    )
    affordable = (options.fixed_usd <= problem.budget_usd) & (options.fixed_gb <= problem.storage_capacity_gb)
    options = options.take(affordable)
    return options.take(~_dominated(options))


def _dominated(options: Options) -> BoolArray:
    """Shape (O,): options that another one of the same (model, tier) replaces; of equal ones the first stays."""
    dominated = np.zeros(len(options), dtype=np.bool_)
    loose_load = (options.load * options.largest_share).sum(axis=0) <= 1
    loose_kv = (options.kv * options.largest_share).sum(axis=0) <= 1
    order = np.argsort(options.pair, kind="stable")
    for d in np.split(order, np.flatnonzero(np.diff(options.pair[order])) + 1):
        if len(d) < 2:
            continue
        used = options.largest_share[:, d] > 0  # by the one to be replaced

        def as_good(value: FloatArray, d: IntArray = d, used: BoolArray = used) -> BoolArray:
            """[new, old]: the new option's value is at most the old one's for each type that the old one serves."""
            v = value[:, d]
            return np.asarray(((v[:, :, None] <= v[:, None, :]) | ~used[:, None, :]).all(axis=0))

        better = options.fixed_usd[d][:, None] <= options.fixed_usd[d][None, :]
        cost_usd = options.fixed_usd[d] + options.move_usd[d]
        better &= cost_usd[:, None] <= cost_usd[None, :]
        better &= ((options.largest_share[:, d] > 0)[:, :, None] | ~used[:, None, :]).all(axis=0)
        better &= as_good(options.delay_s) & as_good(options.error)
        better &= as_good(options.load) | loose_load[d][:, None]
        better &= as_good(options.kv) | loose_kv[d][:, None]
        np.fill_diagonal(better, False)
        tie = better & better.T
        better &= ~tie | (np.arange(len(d))[:, None] < np.arange(len(d))[None, :])
        dominated[d] = better.any(axis=0)
    return dominated
