"""TPOT, TTFT and E2E of one deployment in the steady state: what the simulation is to show at a given load.

The linear rows (`simulator/planning/batching_rows.py`) say where a replica settles on average; this says what a request
sees of it, for reports that put planned against simulated. It is derived from the `batching` discipline
(`simulator/replica/batching.py`) and closed by a few assumptions, each named below. A step lasts a + b P + c n + d C
with P prefill tokens, at most B' = B - n of them, n sequences and C context tokens. All numbers below are per replica;
l is its arrival rate.

**The mean step.** A request of h and f tokens makes work v = b h + c (f - 1) + d ((f - 1) h + f (f - 1) / 2): the
prefill gives the first token. With beta = l E[v] a step lasts s = a / (1 - beta) on average, in whatever way prompts
are cut. Its parts are prefill, b E[P] = r s with r = l b E[h], and V = (1 - r) s, which is a and the decode. The mean
is over steps, and steps of length a are imagined while a replica is idle: what they would do to TPOT is of the order
of l a requests.

**The prefill queue.** Q' = Q - P + A with P = min(Q, B') and A the tokens that arrive in a step. Squaring both sides
gives, in the steady state and exactly for Poisson arrivals and constant V, the mean of what is left over, Q - P,

    E[Q - P] = (l E[h^2] s + (l E[h])^2 E[S^2] - E[P^2]) / (2 (B' - l E[h] (V + b B')))

Without a limit Q = P, and the same equation gives E[P^2]. With one, a prompt token shares its step with
E[P^2] / E[P] <= B' others: *assumed* a smooth minimum of the two.

**Up to the first token.** An arrival falls into a step with a probability that grows with the length of the step: it
waits E[S^2] / 2 s, unless the replica is idle, and sees what is left over of E[Q - P] (V + b B') / s tokens, and those
who came before it in the same step. *Assumed*: such a backlog is there with the probability that a Poisson number of
prompts is not zero, and is then uniform between nothing and twice its mean. The steps until the own prompt is done are
the ceiling of backlog and prompt over B', and each of them takes V; their tokens take b each, also those that fill up
the last one.

**Decode among the prefills that came meanwhile.** What arrived during the TTFT and is not prefilled yet, U, stands
before the first decode step, where a step finds E[Q] on average. The surplus U - E[Q] is worked off by a share
(1 - r) E[P] / E[Q] per step (exact without a limit; else *assumed*), and as every second of it brings r seconds more,
it costs b (U - E[Q]) / (1 - r) in all, of which a short answer sees a part. This is a cost per request: divided by
f - 1 it is what makes short answers after long prompts slow.

**Own decode and what follows from work.** The request adds c + d (h + f / 2) to each of its steps. Each second of work,
its own decode and prefill too, lets requests arrive that prefill at once and decode along with it over tau = E[f^2] /
2 E[f] steps: a linear response, taken as exponential. With q = l E[decode work] / (1 - r) it dies out at the rate
(1 - q) / tau per step, and grows by 1 / (1 - q) for those who stay long enough. The arrival finds more than the mean of
others too, since it falls into long steps: the covariance of a step with the later ones over s, from the same response.
Under a limit on P prefills clump less, by the ratio of the variances of prefill per step within a decode.

**The limit.** All prefill of a step together, with what the responses bring, is at most B': again a smooth minimum.

**Several replicas.** The balancer takes the replica with the fewest tokens. In a time that brings x requests to a
replica on average, those around a request are fewer: by x as long as idle replicas are found, in the end by a k below 1
- 1 / R, the number by which the least loaded of R is below the mean. In between, x and k have a smooth minimum of
exponent p. k = (R - 1) / (R + 1 / 2) and p = (1 + log2 R) / 2 are *fitted*, not to the engine but to R queues with
infinitely many servers each under join-the-shortest-queue (within 0.06 requests for R = 2 to 16). Tokens are balanced,
not requests: for a request of w times the mean tokens k becomes k (w - g), and below zero it draws requests, as many as
R replicas get at most, until the level of the others is reached. That g = 0.5 cv^2 (1 - exp(-requests held))^p, at most
one, with the coefficient of variation of tokens, is *assumed* and its 0.5 *fitted*. What happens to one replica is made
up for by the others, so that its responses count by 1 - k (1 - g) only. The backlog is shared: E[Q - P] / R.

**Lengths** are taken as log-normal with the moments given, at 5 x 5 Gauss-Hermite nodes per type, as the mean of TPOT
over requests has 1 / (f - 1) in it. Where E[1 / (f - 1)] is given the nodes' weights are tilted to it.

The exponents of the smooth minima under a limit, 2 and 4, are *fitted*, as is the 0.5 above, on the first grid of runs
in `tests/statistical/test_steady_state_agrees.py`. TPOT comes within 5 % of nearly all of it, within 9 % where short
answers follow prompts of random length at a load of 0.9; within 5 % of 96 in 100 runs that were made afterwards, 9 % of
all; but only within 16 % with sixty prompt tokens and more per token of output behind eight replicas. TTFT is coarser:
short by up to a third, behind eight replicas by more, where it is decode that fills the replica.

Left out are preemption and waiting for KV memory; the slow swings of n, which lengthen the queue for the first token;
and that requests which end together draw the next ones together, which lengthens it too behind several replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.delay import StepCost
from simulator.moments import FloatArray, TokenMoments
from simulator.replica.port import TypeLoad

LEVEL = 0.5  # of g, per squared coefficient of variation of tokens; fitted
EXPONENT_IN_A_STEP = 2.0  # of the smooth minimum of E[P^2] / E[P] and B'; fitted
EXPONENT_OVER_DECODE = 4.0  # of the smooth minimum of prefill per step and B'; fitted
LEAST_OUTPUT = 2.0  # tokens: below that there is no TPOT
TINY = 1e-12
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
NODE_F, NODE_H = (grid.ravel() for grid in np.meshgrid(NODES, NODES, indexing="ij"))
NODE_WEIGHT = np.outer(WEIGHTS, WEIGHTS).ravel() / WEIGHTS.sum() ** 2


@dataclass(frozen=True, kw_only=True, eq=False)
class SteadyState:
    """What requests see, one entry per type, as means over requests; infinite where the queue would grow for ever.

    Attributes
    ----------
    work_share
        Share of time that the work of the requests takes [beta]; the rest goes to the fixed part of steps, or is idle.
    step_s
        Mean duration of a step, a / (1 - beta): the TPOT that the linear rows imply.
    tpot_s
        As in `RequestTable.tpot_s`: time after the first token over the tokens after it, of requests with two or more.
    """

    work_share: float
    step_s: float
    tpot_s: FloatArray
    ttft_s: FloatArray
    e2e_s: FloatArray


def steady_state(step: StepCost, *, token_budget: int, replicas: int, loads: Sequence[TypeLoad]) -> SteadyState:
    """What the requests of a deployment see, on average. The module says how.

    Parameters
    ----------
    token_budget
        Most tokens of one step [B].
    replicas
        Of one configuration, behind the balancer `least_outstanding_tokens` [R].
    loads
        The types that are routed there, at least one.
    """
    base_s, prefill_s, decode_s, context_s = (  # a, b, c, d
        step.base_s,
        step.prefill_s_per_token,
        step.decode_s_per_sequence,
        step.context_s_per_token,
    )
    rates = np.array([load.rate_per_s for load in loads]) / replicas
    tokens = TokenMoments.stacked([load.tokens for load in loads])
    mean_h, mean_f, mean_hf, mean_ff = tokens.sums[1:5]
    mean_hh = np.array([_input_squared(load.tokens) for load in loads])
    rate = max(float(rates.sum()), TINY)
    mix = rates / rate if rates.any() else np.full(len(loads), 1 / len(loads))
    h, f = _lengths(mean_h, mean_f, mean_hf, mean_ff, mean_hh)
    inverse = np.array([np.nan if load.inverse_output is None else load.inverse_output for load in loads])
    weights = _weights(f, mean_f, mean_ff, inverse)

    def mean(values: Any) -> Any:
        return (values * weights).sum(axis=-1)

    # The mean step.
    decode_work_s = step.decode_work_s(tokens)
    prompt, prompt_squared = float(mix @ mean_h), float(mix @ mean_hh)
    decode_steps, decode_steps_squared = float(mix @ (mean_f - 1)), float(mix @ (mean_ff - 2 * mean_f + 1))
    prefill_share = rate * prefill_s * prompt  # r
    decode_share = rate * float(mix @ decode_work_s)
    work_share = prefill_share + decode_share
    step_s = base_s / (1 - work_share) if work_share < 1 else np.inf
    other_s = step_s * (1 - prefill_share)  # V
    limit = token_budget - rate * decode_steps * step_s  # B'
    full_step_s = other_s + prefill_s * limit
    if not (limit > 0 and rate * prompt * full_step_s < limit):
        never = np.full(len(loads), np.inf)
        return SteadyState(work_share=work_share, step_s=step_s, tpot_s=never, ttft_s=never, e2e_s=never)

    # Several replicas.
    length = h + f
    mean_length = float(mix @ mean(length))
    varied = max(float(mix @ mean(length**2)) / mean_length**2 - 1, 0.0)
    held = rate * (step_s * (1 + decode_steps) + prefill_s * prompt)
    k = (replicas - 1) / (replicas + 0.5)
    level = min(LEVEL * varied * (-np.expm1(-held)) ** _exponent(replicas), 1.0)  # g
    usual = _Balance(fewer=k * (1 - level), replicas=replicas)
    own = _Balance(fewer=k * (length / mean_length - level), replicas=replicas)
    alone = 1 - k * (1 - level)

    # The prefill queue.
    prefill = rate * prompt * step_s  # E[P]
    squared, step_squared = _squares(rate, prompt, prompt_squared, step_s, prefill_s, limit, usual)
    left_over = rate * prompt_squared * step_s + (rate * prompt) ** 2 * step_squared - squared
    left_over = max(left_over, 0.0) / (2 * (limit - rate * prompt * full_step_s)) / replicas  # E[Q - P]
    queue = prefill + left_over  # E[Q]

    # Up to the first token. Axes: without and with a backlog, types, nodes.
    wait_s = step_squared / (2 * step_s) * -np.expm1(-usual.around(held))  # none where the replica is idle
    ahead = left_over * full_step_s / step_s + prompt * usual.around(rate * wait_s)
    prompts_ahead = max(ahead * prompt / prompt_squared, TINY)
    some = -np.expm1(-prompts_ahead)
    backlog = np.array([0.0, ahead / some])[:, None, None]
    chance = np.array([1 - some, some])[:, None, None]
    with_backlog = _mean_ceiling(h / limit, 2 * ahead / some / limit)
    steps = np.maximum(np.stack([np.ceil(h / limit - TINY), with_backlog]), 1.0)
    room = np.maximum(steps * limit - backlog - h, TINY)
    behind = prompt * own.around(rate * (wait_s + (steps - 1) * full_step_s))
    filled_up = _smooth_minimum(behind, room, EXPONENT_IN_A_STEP)
    first_s = wait_s + steps * other_s + prefill_s * (backlog + h + filled_up)
    ttft_s = (chance * first_s).sum(axis=0)

    # Decode among the prefills that came meanwhile.
    surplus = prompt * own.around(rate * first_s) - filled_up - queue  # U - E[Q]
    kept = 1 - (1 - prefill_share) * prefill / queue  # of a surplus, from a step to the next
    decode_time_s = (f - 1) * step_s
    during = own.around(rate * (first_s + decode_time_s)) - own.around(rate * first_s)
    fewer = prompt * (during - rate * decode_time_s)
    response = prefill_share * alone  # of prefill to a second of work, in seconds
    prefill_seen = prefill + (surplus * (1 - kept ** (f - 1)) + fewer) / ((1 - response) * (f - 1))

    # Own decode and what follows from work.
    tau = max(decode_steps_squared / max(2 * decode_steps, TINY), 0.5)  # steps
    growth = decode_share * alone / (1 - response)  # q
    decay = (1 - growth) / tau
    faded = -np.expm1(-decay * (f - 1)) / (decay * (f - 1))  # mean over the decode of a response that is 1 at its start
    followers = growth / (1 - growth)
    own_s = decode_s + context_s * (h + f / 2)
    requests = rate * float(mix @ mean(ttft_s + decode_time_s))
    absent_s = (other_s - base_s) * (1 - usual.around(requests) / requests)
    work_s = (own_s - absent_s) * (1 + followers * (1 - faded))
    work_s = (work_s + prefill_s * h * followers * decay * faded * alone) / (1 - response)
    by_decode = decode_work_s**2 * decode_steps_squared / max(decode_steps, TINY) ** 2
    by_decode = by_decode + 2 * decode_work_s * prefill_s * mean_h * growth + (prefill_s * growth) ** 2 * mean_hh
    by_prefill = prefill_s * (mean_h * decode_work_s + prefill_s * growth * mean_hh)
    covariance_s = rate * float(mix @ (by_decode / (2 * decay * tau) + by_prefill)) / (tau * (1 - prefill_share) ** 2)
    recent = kept * np.exp(-decay)
    clumps = (squared - prefill**2) * (1 + recent) / (1 - recent)
    clumps = min(clumps * (1 - prefill_share) ** 2 / (rate * prompt_squared * step_s), 1.0)
    work_s = work_s + covariance_s * clumps * alone * faded

    # The limit.
    prefill_seen = np.maximum(prefill_seen + work_s * response / prefill_s, TINY)
    prefill_seen = (chance * _smooth_minimum(prefill_seen, limit, EXPONENT_OVER_DECODE)).sum(axis=0)
    tpot_s = other_s + prefill_s * prefill_seen + work_s * (1 - response)
    return SteadyState(
        work_share=work_share,
        step_s=step_s,
        tpot_s=mean(tpot_s),
        ttft_s=mean(ttft_s),
        e2e_s=mean(ttft_s + (f - 1) * tpot_s),
    )


def _input_squared(tokens: TokenMoments) -> float:
    """E[h^2]; where nobody counted it, of prompts that vary as much as outputs."""
    _, h, f, _, ff, hh = tokens.sums.tolist()
    return float(h**2 * ff / f**2 if np.isnan(hh) else hh)


def _lengths(h: FloatArray, f: FloatArray, hf: FloatArray, ff: FloatArray, hh: FloatArray) -> tuple[Any, Any]:
    """Prompt and output tokens at the nodes, shape (types, nodes): log-normal with these moments."""
    sigma_h = np.sqrt(np.log(np.maximum(hh / h**2, 1.0)))
    sigma_f = np.sqrt(np.log(np.maximum(ff / f**2, 1.0)))
    correlation = np.clip(np.log(hf / (h * f)) / np.maximum(sigma_h * sigma_f, TINY), -1.0, 1.0)
    z_h = correlation[:, None] * NODE_F + np.sqrt(1 - correlation**2)[:, None] * NODE_H
    at_h = h[:, None] * np.exp(sigma_h[:, None] * z_h - sigma_h[:, None] ** 2 / 2)
    at_f = f[:, None] * np.exp(sigma_f[:, None] * NODE_F - sigma_f[:, None] ** 2 / 2)
    return at_h, np.maximum(at_f, LEAST_OUTPUT)


def _weights(f: Any, mean_f: FloatArray, mean_ff: FloatArray, inverse: FloatArray) -> Any:
    """Weights of the nodes, shape (types, nodes), with the right E[f], E[f^2] and, unless it is NaN, E[1 / (f - 1)].

    They are those of Gauss and Hermite times 1, f, f^2 and 1 / (f - 1) in the proportions that these moments ask for.
    """
    weights = np.tile(NODE_WEIGHT, (len(f), 1))
    for i in np.flatnonzero(~np.isnan(inverse) & (np.ptp(f, axis=1) > TINY)):
        x = f[i] / mean_f[i]
        basis = np.stack([np.ones_like(x), x, x**2, (mean_f[i] - 1) / (f[i] - 1)])
        moments = np.array([1.0, 1.0, mean_ff[i] / mean_f[i] ** 2, (mean_f[i] - 1) * inverse[i]])
        weights[i] *= np.linalg.solve((basis * NODE_WEIGHT) @ basis.T, moments) @ basis
    return weights


def _exponent(replicas: int) -> float:
    """Of the smooth minimum between what a balancer can keep away at first and in the long run [p]."""
    return float((1 + np.log2(replicas)) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Balance:
    """How many requests the balancer keeps away from around a request in the long run; below zero, it sends more."""

    fewer: Any
    replicas: int

    def around(self, expected: Any) -> Any:
        """Requests at the same replica around it, where `expected` come on average."""
        if self.replicas == 1:
            return expected
        away = _smooth_minimum(expected, np.maximum(self.fewer, TINY), _exponent(self.replicas))
        drawn = _smooth_minimum((self.replicas - 1) * expected, np.maximum(-self.fewer, TINY), 1.0)
        return np.maximum(expected - away + drawn, 0.0)


def _squares(
    rate: float, prompt: float, prompt_squared: float, step_s: float, prefill_s: float, limit: float, usual: _Balance
) -> tuple[float, float]:
    """E[P^2] in tokens and E[S^2] in seconds: each needs the other for how prompts clump in a step."""
    prefill, share = rate * prompt * step_s, rate * prompt * prefill_s
    other_s = step_s * (1 - share)
    without_s = other_s * (other_s + 2 * prefill_s * prefill)  # E[S^2] without the part of E[P^2]
    squared, step_squared = prefill**2, step_s**2
    for _ in range(4):
        expected = rate * step_squared / step_s
        apart = usual.around(expected) / expected
        linear = rate * prompt_squared * step_s + apart * (rate * prompt) ** 2 * without_s
        linear /= 1 - apart * share**2
        squared = prefill * float(_smooth_minimum(linear / prefill, limit, EXPONENT_IN_A_STEP))
        step_squared = without_s + prefill_s**2 * squared
    return squared, step_squared


def _smooth_minimum(value: Any, limit: Any, exponent: float) -> Any:
    return value * (1 + (value / limit) ** exponent) ** (-1 / exponent)


def _mean_ceiling(low: Any, width: float) -> Any:
    """Mean of the ceiling of a number that is uniform on [low, low + width]."""

    def integral(x: Any) -> Any:
        whole = np.floor(x)
        return whole * (whole + 1) / 2 + (x - whole) * (whole + 1)

    return (integral(low + width) - integral(low)) / width
