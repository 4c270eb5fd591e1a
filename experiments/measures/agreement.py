"""Planned against simulated, deployment by deployment: does the planner know what the simulation will show?

Of each deployment the load (share of a replica's time that the work of its requests takes, as its discipline counts
work), the mean time per output token and the mean delay, once as the discipline expects them at the demand and the
routing of the plan (`Discipline.expected`), once as the requests had them. Two things come between:
the model, and a demand that is not the one planned for. Where the arrivals are known, only the first does: load comes
and goes with them, so the steady state is taken window by window, each twice as long as a request stays, and averaged
over the requests (the pointwise stationary approximation of queueing theory), windows differing only by what exceeds
the luck of Poisson arrivals. A window with more work than a replica can do counts as one that is just full, what it
leaves over is not carried to the next, and nobody waits longer than half of the work that came in a window takes,
beside the wait at the mean load.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.measures.load import busy_s
from experiments.scenario.demand import Arrived, Demand, demand_of_sums
from experiments.scenario.scenario import Scenario
from experiments.show.parts import Table
from simulator.catalog.configuration import DeploymentKey, PairKey
from simulator.engine.results import RequestTable, RunSummary
from simulator.moments import FloatArray, TokenMoments
from simulator.planning.plan import Deployment, Plan
from simulator.replica.port import Expected, TypeLoad
from simulator.units import SECONDS_PER_H

WINDOW = 2.0  # stays of a request: shorter windows count the luck of single arrivals twice
GROUPS = 40  # of windows of like load
FULL, FULL_STEPS = 0.98, 6  # load of a replica that is just full, and how closely it is found


def expected(scenario: Scenario, demand: Demand, plan: Plan) -> dict[DeploymentKey, Expected]:
    """What a plan says of its deployments at a demand."""
    share = _shares(scenario, plan)
    return {
        d.configuration.deployment_key: _at(scenario, demand, d, share[d.configuration.pair]) for d in plan.deployments
    }


def _shares(scenario: Scenario, plan: Plan) -> dict[PairKey, dict[int, float]]:
    """Share of each query type, by index, at each deployment."""
    share: dict[PairKey, dict[int, float]] = {d.configuration.pair: {} for d in plan.deployments}
    index = {rule.name: i for i, rule in enumerate(scenario.types)}
    for route in plan.routing:
        share[route.model, route.tier][index[route.query_type]] = route.share
    return share


def expected_of(scenario: Scenario, arrived: Arrived, plan: Plan) -> dict[DeploymentKey, Expected]:
    """What a plan says of its deployments if it is known what arrives when."""
    means = expected(scenario, arrived.demand(), plan)
    if not scenario.discipline.queues:
        return means
    share, found = _shares(scenario, plan), dict(means)
    for deployment in plan.deployments:
        key = deployment.configuration.deployment_key
        stay_s = means[key].delay_s
        if np.isfinite(stay_s):  # else it has no requests, or more of them than it can serve: no queue comes to rest
            windows = arrived.in_windows_of(WINDOW * stay_s)
            found[key] = _over_windows(scenario, windows, deployment, share[deployment.configuration.pair], means[key])
    return found


def _over_windows(
    scenario: Scenario, arrived: Arrived, deployment: Deployment, share: Mapping[int, float], mean: Expected
) -> Expected:
    """Times averaged over groups of windows of like load, weighted by their requests."""
    discipline, replica = scenario.discipline, scenario.nominal_replica(deployment.configuration.deployment_key)
    types = list(share)
    part = np.array([share[i] for i in types])[:, None]
    arrived = replace(arrived, tokens=_beyond_luck(arrived.tokens, types, part, discipline.token_work_s(replica)))
    tokens = arrived.tokens[types]
    order = np.argsort((part * discipline.planned_work_s(replica, tokens)).sum(axis=0), kind="stable")
    count = np.cumsum((part * tokens.requests).sum(axis=0)[order])
    outputs = float((part * tokens.output_tokens).sum() / max(count[-1], 1e-12))
    group = np.minimum((count / max(count[-1], 1e-12) * GROUPS - 1e-9).astype(np.int64), GROUPS - 1)
    tpot, delay = [], []
    for number in np.unique(group).tolist():
        windows = order[group == number]
        together = TokenMoments(arrived.tokens.sums[:, :, windows]).total()
        here = _at_most_full(scenario, demand_of_sums(together, arrived.window_s * len(windows)), deployment, share)
        if here.requests_per_s:
            weight = here.requests_per_s * len(windows)
            longer_s = (here.tpot_s - mean.tpot_s) * max(0.0, outputs - 1)
            most_s = mean.delay_s + longer_s + arrived.window_s * here.load / 2
            tpot.append((here.tpot_s, weight))
            delay.append((min(here.delay_s, most_s) if np.isfinite(most_s) else here.delay_s, weight))
    return replace(mean, tpot_s=_mean(tpot) or np.inf, delay_s=_mean(delay) or np.inf)


def _beyond_luck(
    tokens: TokenMoments, types: list[int], part: FloatArray, token_work_s: tuple[float, float]
) -> TokenMoments:
    """Sums of windows as far as they differ by more than the luck of Poisson arrivals, which the steady state knows.

    With w = b h + c f for the work of a request the sum over a window has the variance E[sum w^2] if arrivals are
    Poisson. The windows are drawn to their mean until what is left of their variance is what exceeds that.
    """
    b, c = token_work_s
    _, h, f, hf, ff, hh = tokens[types].sums
    spread = (part * (b * h + c * f)).sum(axis=0).var()
    luck = (part**2 * (b**2 * hh + 2 * b * c * hf + c**2 * ff)).sum(axis=0).mean()
    kept = np.sqrt(max(0.0, 1 - luck / spread)) if spread > 0 else 0.0
    mean = tokens.sums.mean(axis=2, keepdims=True)
    return TokenMoments(mean + kept * (tokens.sums - mean))


def _at_most_full(scenario: Scenario, demand: Demand, deployment: Deployment, share: Mapping[int, float]) -> Expected:
    """What a deployment says of a demand, or of as much of it as it can serve; weighted as all of it."""
    found = _at(scenario, demand, deployment, share)
    if np.isfinite(found.delay_s) or not found.requests_per_s:
        return found
    low, high, fits = 0.0, 1.0, found
    for _ in range(FULL_STEPS):
        middle = (low + high) / 2
        tried = _at(scenario, demand, deployment, {i: middle * part for i, part in share.items()})
        if np.isfinite(tried.delay_s) and tried.load < FULL:
            low, fits = middle, tried
        else:
            high = middle
    return replace(fits, requests_per_s=found.requests_per_s)


def _at(scenario: Scenario, demand: Demand, deployment: Deployment, share: Mapping[int, float]) -> Expected:
    """What the discipline expects of a deployment at the shares of a demand."""
    loads = [
        TypeLoad(rate_per_s=part * float(demand.arrival_per_h[i]) / SECONDS_PER_H, tokens=demand.tokens[i])
        for i, part in share.items()
    ]
    replica = scenario.nominal_replica(deployment.configuration.deployment_key)
    return scenario.discipline.expected(replica, deployment.replicas, loads)


class Simulated:
    """What the requests of a run had, by deployment: taken in batch by batch."""

    COLUMNS = ("served", "timed", "busy_s", "tpot_s", "delay_s")

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._sums: dict[DeploymentKey, FloatArray] = {}

    def add(self, requests: RequestTable) -> None:
        """Take in a batch."""
        routed = np.flatnonzero(requests.deployment >= 0)
        where = requests.deployment[routed]
        served = requests.served[routed]
        tpot_s = requests.tpot_s[routed]
        timed = ~np.isnan(tpot_s)
        known = len(requests.deployments)
        table = np.stack(
            [
                np.bincount(where[served], minlength=known),
                np.bincount(where[timed], minlength=known),
                np.bincount(where, weights=busy_s(self._scenario, requests)[routed], minlength=known),
                np.bincount(where[timed], weights=tpot_s[timed], minlength=known),
                np.bincount(where[served], weights=requests.e2e_s[routed][served], minlength=known),
            ],
            axis=1,
        )
        for key, row in zip(requests.deployments, table, strict=True):
            self._sums[key] = self._sums.get(key, 0.0) + row

    def of(self, key: DeploymentKey) -> dict[str, float]:
        """Sums over the requests of a deployment, by the names of `COLUMNS`."""
        row = self._sums.get(key, np.zeros(len(self.COLUMNS)))
        return dict(zip(self.COLUMNS, row.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One deployment, planned and simulated; None where nothing was planned, or no request has the time.

    Loads are shares of a replica's time, delays means over requests.
    """

    deployment: str
    replica_hours: float
    requests: int
    planned_load: float | None
    simulated_load: float | None
    planned_tpot_s: float | None
    simulated_tpot_s: float | None
    planned_delay_s: float | None
    simulated_delay_s: float | None


def agreements(
    run: RunSummary, simulated: Simulated, says: Sequence[tuple[float, Mapping[DeploymentKey, Expected]]]
) -> list[Agreement]:
    """Each deployment of a run with requests, those with most of them first.

    Parameters
    ----------
    says
        Time at which each plan came into force [s], and what it says of its deployments. Several plans are averaged:
        loads over replicas and time, times over requests.
    """
    starts = [start for start, _ in says]
    lengths = np.diff([*starts, run.horizon_s]) if starts else np.zeros(0)
    rows = []
    for index, key in enumerate(run.deployments):
        found = simulated.of(key)
        ready_s = math.fsum(
            max(0.0, min(rental.end_s, run.horizon_s) - max(rental.ready_s, 0.0))
            for rental in run.rentals
            if rental.deployment == index
        )
        own = [(plan[key], length) for (_, plan), length in zip(says, lengths.tolist(), strict=True) if key in plan]
        rows.append(
            Agreement(
                deployment=str(key),
                replica_hours=ready_s / SECONDS_PER_H,
                requests=int(found["served"]),
                planned_load=_mean([(e.load, e.replicas * length) for e, length in own]),
                simulated_load=found["busy_s"] / ready_s if ready_s else None,
                planned_tpot_s=_mean([(e.tpot_s, e.requests_per_s * length) for e, length in own]),
                simulated_tpot_s=found["tpot_s"] / found["timed"] if found["timed"] else None,
                planned_delay_s=_mean([(e.delay_s, e.requests_per_s * length) for e, length in own]),
                simulated_delay_s=found["delay_s"] / found["served"] if found["served"] else None,
            )
        )
    return sorted(rows, key=lambda row: -row.requests)


def _mean(weighted: Sequence[tuple[float, float]]) -> float | None:
    """Weighted mean of what is known and finite; None if one is infinite or none has any weight."""
    known = [(value, weight) for value, weight in weighted if weight > 0 and not np.isnan(value)]
    if not known or any(np.isinf(value) for value, _ in known):
        return None
    return float(np.average([value for value, _ in known], weights=[weight for _, weight in known]))


def off(planned: float | None, simulated: float | None) -> float | None:
    """How far what was planned is off, relative to what was simulated."""
    if planned is None or simulated is None or simulated <= 0:
        return None
    return planned / simulated - 1


def agreement_table(rows: Sequence[Mapping[str, Any]], *, title: str, note: str = "") -> Table:
    """Rows of `Agreement` as dictionaries, with `policy` where there are several."""

    def cell(row: Mapping[str, Any], name: str, scale: float, digits: int) -> str:
        planned, simulated = (_known(row[f"{side}_{name}"]) for side in ("planned", "simulated"))
        error = off(planned, simulated)
        told = ["-" if value is None else f"{value * scale:,.{digits}f}" for value in (planned, simulated)]
        return " / ".join(told) + ("" if error is None else f" ({100 * error:+.1f} %)")

    policies = ["policy"] if any("policy" in row for row in rows) else []
    body = [
        [
            *(str(row[name]) for name in policies),
            str(row["deployment"]),
            f"{row['requests']:,}",
            cell(row, "load", 100, 1),
            cell(row, "tpot_s", 1000, 2),
            cell(row, "delay_s", 1, 2),
        ]
        for row in rows
    ]
    columns = (*policies, "deployment", "requests", "load [%]", "TPOT [ms]", "delay [s]")
    note = f"each as planned / simulated (by how much the planner is off); {note}".removesuffix("; ")
    return Table(title=title, columns=columns, rows=body, labels=len(policies) + 1, note=note)


def mean_off(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """By how much the planner was off on average, whatever the sign, each deployment by its requests; None if unknown.

    `name` is `load`, `tpot_s` or `delay_s`.
    """
    known = [
        (abs(error), int(row["requests"]))
        for row in rows
        if (error := off(_known(row[f"planned_{name}"]), _known(row[f"simulated_{name}"]))) is not None
        and row["requests"]
    ]
    return float(np.average([error for error, _ in known], weights=[n for _, n in known])) if known else None


def agreement_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far planner and simulator are apart, in a sentence."""
    told = [
        f"{what} by {100 * error:.1f} %"
        for what, name in (("load", "load"), ("TPOT", "tpot_s"), ("delay", "delay_s"))
        if (error := mean_off(rows, name)) is not None
    ]
    if not told:
        return "Planned and simulated cannot be compared: no deployment has both."
    return f"Planned against simulated, mean over requests: off in {', '.join(told)}."


def _known(value: float | None) -> float | None:
    """Parquet and pandas write what is not known as NaN."""
    return None if value is None or np.isnan(value) else float(value)
