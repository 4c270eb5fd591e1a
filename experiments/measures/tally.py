"""What the requests of a run add up to: taken batch by batch, in memory that does not grow with the trace."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from experiments.measures.agreement import Simulated
from experiments.measures.load import work_s
from experiments.measures.quantiles import Quantiles
from experiments.scenario.demand import ArrivedSums
from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import SloCount, count_slo
from simulator.catalog.configuration import Configuration, DeploymentKey
from simulator.engine.results import RequestTable
from simulator.fleet.reality import Reality
from simulator.replica.outcome import Outcome

BoolColumn = npt.NDArray[np.bool_]
FloatColumn = npt.NDArray[np.float64]

BURST_WINDOWS = 3600
REJECTED = (Outcome.REJECTED_UNMET, Outcome.REJECTED_TOO_LARGE)
COUNTS = ("arrived", "served", "rejected", "failed", "in_flight", "slo_violations")
SUMS = ("e2e_s", "error", "tokens")  # over the served requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Per request, shape (requests,): which served requests broke a limit, and the expected error of each.

    `error` is NaN unless served.
    """

    violated: BoolColumn
    error: FloatColumn


def judge(scenario: Scenario, requests: RequestTable, reality: Reality) -> Judgement:
    """Hold every served request against the limits of its type: E2E delay, TTFT and TPOT."""
    violated = np.zeros(len(requests), dtype=np.bool_)
    for index, rule in enumerate(scenario.types):
        own = requests.served & (requests.query_type == index)
        late = requests.e2e_s > rule.delay_slo_s
        if rule.ttft_slo_s is not None:
            late |= requests.ttft_s > rule.ttft_slo_s
        if rule.tpot_slo_s is not None:
            late |= requests.tpot_s > rule.tpot_slo_s
        violated |= own & late
    table = scenario.error_of(configurations_of(requests.deployments)) * reality.error_factor
    error = np.full(len(requests), np.nan)
    served = requests.served
    error[served] = table[requests.query_type[served], requests.deployment[served]]
    return Judgement(violated=violated, error=error)


def configurations_of(keys: tuple[DeploymentKey, ...]) -> tuple[Configuration, ...]:
    return tuple(Configuration(**asdict(key)) for key in keys)


def regular_starts(horizon_s: float, step_s: float) -> FloatColumn:
    """Starts of the intervals of a run; the last one ends with the run."""
    return np.arange(0.0, horizon_s, step_s)


class Tally:
    """Sums by interval of arrival and query type, and quantiles of the whole run.

    Attributes
    ----------
    starts_s
        Starts of the intervals, shape (intervals,).
    counts, sums
        By the names of `COUNTS` and `SUMS`, each of shape (types, intervals).
    ttft_s, tpot_s, e2e_s
        Quantiles over all requests that have the time.
    slos
        The percentile SLOs of the scenario, each with the index of its query type.
    arrived
        What arrived, in windows of a second or, in long runs, of `1 / BURST_WINDOWS` of the run.
    simulated
        What the requests had, by deployment.
    load_starts_s, work_s
        Starts of finer intervals, for the figure of demand and capacity, and the replica seconds that the requests
        arriving in each need.
    """

    def __init__(self, scenario: Scenario, *, horizon_s: float, interval_s: float) -> None:
        self._scenario = scenario
        self.starts_s = regular_starts(horizon_s, interval_s)
        shape = len(scenario.types), len(self.starts_s)
        self.counts = {name: np.zeros(shape, dtype=np.int64) for name in COUNTS}
        self.sums = {name: np.zeros(shape) for name in SUMS}
        self.ttft_s, self.tpot_s, self.e2e_s = Quantiles(), Quantiles(), Quantiles()
        self.slos = [(index, slo) for index, rule in enumerate(scenario.types) for slo in rule.slos()]
        self.arrived = ArrivedSums(len(scenario.types), max(1.0, horizon_s / BURST_WINDOWS), horizon_s)
        self.simulated = Simulated(scenario)
        self._slo_counts = np.zeros((len(self.slos), 2), dtype=np.int64)  # requests, beyond the limit
        self._slo_times = [Quantiles() for _ in self.slos]
        self.preemptions = 0
        self.load_starts_s = regular_starts(horizon_s, max(60.0, horizon_s / 600))
        self.work_s = np.zeros(len(self.load_starts_s))

    def add(self, requests: RequestTable, judgement: Judgement) -> None:
        """Take in a batch."""
        interval = _interval_of(requests.arrival_s, self.starts_s)
        cell = requests.query_type * len(self.starts_s) + interval
        masks = {
            "arrived": np.ones(len(requests), dtype=np.bool_),
            "served": requests.served,
            "rejected": np.isin(requests.outcome, REJECTED),
            "failed": requests.outcome == Outcome.FAILED,
            "in_flight": requests.outcome == Outcome.IN_FLIGHT,
            "slo_violations": judgement.violated,
        }
        for name, mask in masks.items():
            counts = self.counts[name]
            counts += np.bincount(cell[mask], minlength=counts.size).reshape(counts.shape)
        tokens = (requests.input_tokens + requests.output_tokens).astype(np.float64)
        for name, values in (("e2e_s", requests.e2e_s), ("error", judgement.error), ("tokens", tokens)):
            sums, served = self.sums[name], requests.served
            sums += np.bincount(cell[served], weights=values[served], minlength=sums.size).reshape(sums.shape)
        self.ttft_s.add(requests.ttft_s)
        self.tpot_s.add(requests.tpot_s)
        self.e2e_s.add(requests.e2e_s)
        self.simulated.add(requests)
        self.arrived.add(requests.arrival_s, requests.query_type, requests.input_tokens, requests.output_tokens)
        for row, (index, slo) in enumerate(self.slos):
            found = count_slo(requests, index, slo)
            self._slo_counts[row] += found.requests, found.over
            self._slo_times[row].add(getattr(requests, slo.measure)[requests.query_type == index])
        self.preemptions += int(requests.preemptions.sum())
        step = _interval_of(requests.arrival_s, self.load_starts_s)
        needed = work_s(self._scenario, requests)
        self.work_s += np.bincount(step, weights=needed, minlength=len(self.work_s))

    def slo_rows(self) -> list[dict[str, object]]:
        """Each percentile SLO with what the run made of it; `value_s` is the percentile of those that have the time."""
        rows: list[dict[str, object]] = []
        for (index, slo), (requests, over), times in zip(
            self.slos, self._slo_counts.tolist(), self._slo_times, strict=True
        ):
            found = SloCount(slo=slo, requests=requests, over=over)
            rows.append(
                {
                    "query_type": self._scenario.types[index].name,
                    "measure": slo.measure,
                    "percentile": slo.percentile,
                    "limit_s": slo.limit_s,
                    "value_s": float(times.at(np.array([slo.level]))[0]) if times.count else None,
                    "requests": requests,
                    "over": over,
                    "held": found.held,
                }
            )
        return rows

    def count(self, name: str) -> int:
        """One of `COUNTS` over the whole run."""
        return int(self.counts[name].sum())


def _interval_of(arrival_s: FloatColumn, starts_s: FloatColumn) -> npt.NDArray[np.int64]:
    return np.searchsorted(starts_s[1:], arrival_s, side="right").astype(np.int64)
