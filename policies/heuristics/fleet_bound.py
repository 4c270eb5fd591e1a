"""What a fleet costs at least: a bound in microseconds, where the routing program takes most of a millisecond.

With the fleet fixed, only its capacities couple the query types. They are priced (one multiplier for the compute, one
for the KV cache of each deployment), and then each type goes its own way: to the cheapest among its deployments and
staying unmet, or to the cheapest mixture of two, one of which keeps the limit that the other breaks. Delay and error
are taken one at a time, and half and half; each is a relaxation, so that the dearest of the three is a bound. Budget,
storage and unmet caps other than zero are left out. The multipliers climb by subgradient steps towards the cost that is
to be beaten.

In machine code, because a search bounds thousands of fleets in the time of a hundred routings.
"""

from collections.abc import Sequence

import numpy as np
from numba import float64, int64, void

from policies.heuristics.machine_code import compiled
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

NONE = -1  # in a row of fleets: no deployment
SERVE, LOAD, KV, LIMITS = 0, 1, 2, 3  # fields of the table
DELAY_WEIGHTS = (1.0, 0.0, 0.5)  # of the delay limit in a combined one; the rest is that of the error limit
STEPS = 12
FLAT = 1e-12  # squared length of a subgradient that leads nowhere

VECTOR, WHOLE, FLEETS, TABLE = float64[::1], int64[::1], int64[:, ::1], float64[:, :, ::1]


@compiled(void(FLEETS, WHOLE, VECTOR, VECTOR, TABLE, VECTOR, float64, int64, VECTOR))
def _bound(
    fleets: IntArray,
    configuration: IntArray,
    replicas: FloatArray,
    fixed_usd: FloatArray,
    table: FloatArray,
    unmet_usd: FloatArray,
    cutoff_usd: float,
    steps: int,
    bounds_usd: FloatArray,
) -> None:  # pragma: no cover
    types, most, limits = len(unmet_usd), fleets.shape[1], table.shape[1] - LIMITS
    price, used = np.empty((2, most)), np.empty((2, most))
    cost, row, weight = np.empty(most), np.empty(most, dtype=np.int64), np.empty(most)
    for n in range(len(fleets)):
        size, fixed = 0, 0.0
        while size < most and fleets[n, size] != NONE:
            d = fleets[n, size]
            fixed += fixed_usd[d]
            row[size], weight[size] = configuration[d], 1.0 / replicas[d]
            size += 1
        price[:] = 0.0
        best = -np.inf
        for _ in range(steps):
            total = fixed
            for k in range(size):
                total -= price[0, k] + price[1, k]
            used[:] = 0.0
            for i in range(types):
                for k in range(size):
                    a = row[k]
                    paid = price[0, k] * table[a, LOAD, i] + price[1, k] * table[a, KV, i]
                    cost[k] = table[a, SERVE, i] + weight[k] * paid
                highest, at_first, at_second, second_share = -np.inf, NONE, NONE, 0.0
                for w in range(limits):
                    lowest, first, second, share = unmet_usd[i], NONE, NONE, 0.0
                    for a in range(-1, size):  # -1: to stay unmet
                        value_a = 0.0 if a < 0 else table[row[a], LIMITS + w, i]
                        if value_a > 1.0:
                            continue
                        cost_a = unmet_usd[i] if a < 0 else cost[a]
                        if cost_a < lowest:
                            lowest, first, second, share = cost_a, a, NONE, 0.0
                        for b in range(size):
                            if cost[b] >= cost_a:
                                continue
                            value_b = table[row[b], LIMITS + w, i]
                            if value_b <= 1.0:
                                continue
                            part = (1.0 - value_a) / (value_b - value_a)
                            mixed = cost_a + (cost[b] - cost_a) * part
                            if mixed < lowest:
                                lowest, first, second, share = mixed, a, b, part
                    if lowest > highest:
                        highest, at_first, at_second, second_share = lowest, first, second, share
                total += highest
                if at_first >= 0:
                    used[0, at_first] += (1.0 - second_share) * table[row[at_first], LOAD, i]
                    used[1, at_first] += (1.0 - second_share) * table[row[at_first], KV, i]
                if at_second >= 0:
                    used[0, at_second] += second_share * table[row[at_second], LOAD, i]
                    used[1, at_second] += second_share * table[row[at_second], KV, i]
            best = max(best, total)
            if best >= cutoff_usd:
                break
            length = 0.0
            for c in range(2):
                for k in range(size):
                    slope = used[c, k] * weight[k] - 1.0
                    if slope < 0.0 and price[c, k] <= 0.0:
                        slope = 0.0
                    used[c, k] = slope
                    length += slope * slope
            if length < FLAT:
                break
            for c in range(2):
                for k in range(size):
                    price[c, k] = max(0.0, price[c, k] + (cutoff_usd - total) / length * used[c, k])
        bounds_usd[n] = best


class FleetBound:
    """Bounds on the fleets of one problem. A fleet is a set of *options*: so many replicas of a configuration each."""

    def __init__(self, problem: PlanningProblem) -> None:
        capable = problem.allowed & ((problem.cap > 0) | (problem.load <= 0))
        serve_usd = problem.delay_penalty_usd + problem.token_storage_usd[:, None]
        slow, wrong = _multiples(problem.delay_s, problem.delay_slo_s), _multiples(problem.error, problem.error_slo)
        limits = [slow if w == 1 else wrong if w == 0 else w * slow + (1 - w) * wrong for w in DELAY_WEIGHTS]
        load = np.divide(problem.load, problem.cap, out=np.zeros_like(problem.load), where=problem.cap > 0)
        fields = [np.where(capable, serve_usd, np.inf), load, problem.kv, *limits]
        self._table = np.ascontiguousarray(np.stack(fields).transpose(2, 0, 1))
        # What must be served whole has no way out; any other cap is left out.
        self._unmet_usd = np.where(problem.unmet_cap > 0, problem.unmet_usd, np.inf)

    def __call__(
        self,
        fleets: IntArray,
        configuration: IntArray,
        replicas: IntArray,
        fixed_usd: FloatArray,
        *,
        cutoff_usd: float,
        steps: int = STEPS,
    ) -> FloatArray:
        """What plans with these fleets cost at least, shape (F,).

        Parameters
        ----------
        fleets
            Shape (F, K): options, and `NONE` after the last one of a fleet with fewer than K.
        configuration, replicas, fixed_usd
            Shape (options,): what an option deploys, and what it costs whatever it serves.
        cutoff_usd
            Finite. A bound that reaches it is not raised any further.
        steps
            Of the multipliers, at least one.
        """
        bounds_usd = np.empty(len(fleets))
        _bound(
            np.ascontiguousarray(fleets, dtype=np.int64),
            np.ascontiguousarray(configuration, dtype=np.int64),
            np.ascontiguousarray(replicas, dtype=np.float64),
            np.ascontiguousarray(fixed_usd, dtype=np.float64),
            self._table,
            self._unmet_usd,
            float(cutoff_usd),
            steps,
            bounds_usd,
        )
        return bounds_usd


def as_table(fleets: Sequence[Sequence[int]]) -> IntArray:
    """Fleets of any size as rows of one length."""
    table = np.full((len(fleets), max((len(fleet) for fleet in fleets), default=0)), NONE, dtype=np.int64)
    for n, fleet in enumerate(fleets):
        table[n, : len(fleet)] = fleet
    return table


def _multiples(use: FloatArray, limit: FloatArray) -> FloatArray:
    """Use in multiples of the limit (types,); any use of a limit of zero is infinitely much."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(use > 0, use / limit[:, None], 0.0))
