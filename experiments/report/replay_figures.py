"""The charts of a replay, declared once from the tables of its run directory; figures and page both draw them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from experiments.measures.cost import COST_PARTS, gpus_by_tier
from experiments.measures.quantiles import Quantiles
from experiments.show.parts import AreaChart, BarChart, Chart, Line, LineChart, Panels, merged
from experiments.show.units import clock
from simulator.errors import InputError

COLUMNS = {
    "intervals": ["policy", "interval_start_s", "arrived", "served", "slo_violations"],
    "costs": ["policy", "interval_start_s", "interval_end_s", *(f"{part}_usd" for part in COST_PARTS)],
    "rentals": ["policy", "tier", "gpus", "rent_s", "end_s"],
    "load": ["policy", "start_s", "end_s", "replicas_needed", "replicas_ready"],
}
LATENCIES = (  # column, name, unit that is shown, how many of it make a second
    ("ttft_s", "Time to first token", "s", 1.0),
    ("tpot_s", "Time per output token", "ms", 1000.0),
    ("e2e_s", "End-to-end delay", "s", 1.0),
)
MOST_POINTS = 400  # of a curve
ROOM = 1.05  # above the highest point


class ReplayCharts:
    """The charts of a run directory, by what they are about.

    Raises
    ------
    InputError
        If tables of the directory are missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        tables = {name: read_table(directory / f"{name}.parquet", columns) for name, columns in COLUMNS.items()}
        self._intervals, self._costs, self._rentals, self._load = tables.values()
        self._requests = directory / "requests.parquet"
        self.policies = list(dict.fromkeys(self._costs["policy"]))
        self._horizon_s = float(self._load["end_s"].max()) if len(self._load) else 0.0
        self._unit_s, unit = clock(self._horizon_s)
        self._time = f"time [{unit}]"

    def _own(self, table: pd.DataFrame, policy: str) -> pd.DataFrame:
        return table[table["policy"] == policy]

    def _curve(self, policy: str, times_s: npt.ArrayLike, y: Sequence[float | None], **more: Any) -> Line:
        """A value for each time, or for each stretch between two."""
        values = [*y, *y[-1:]] if more.get("steps") else list(y)
        x = (np.asarray(times_s) / self._unit_s).tolist() if values else []
        return Line(name=policy, x=x, y=values, markers=False, **more)

    def _over_time(self, key: str, title: str, y_label: str, lines: Sequence[Line], **more: Any) -> LineChart:
        end = max((line.x[-1] for line in lines if line.x), default=0.0)
        return LineChart(
            key=key,
            title=title,
            x_label=self._time,
            y_label=y_label,
            lines=merged(lines),
            from_zero=True,
            x_range=(0.0, end or 1.0),
            **more,
        )

    def money(self) -> list[Chart]:
        """What was spent, over time and for what."""
        lines, totals = [], {}
        for policy in self.policies:
            own = self._own(self._costs, policy)
            parts = own[[f"{part}_usd" for part in COST_PARTS]].to_numpy(dtype=float)
            spent = [0.0, *np.cumsum(parts.sum(axis=1)).tolist()]
            lines.append(self._curve(policy, [0.0, *own["interval_end_s"]], spent))
            totals[policy] = parts.sum(axis=0).tolist()
        by_part = dict(zip(COST_PARTS, zip(*totals.values(), strict=True), strict=True))
        return [
            self._over_time("cost_over_time", "Money spent since the start", "cost so far [USD]", lines),
            BarChart(
                key="cost_parts",
                title="What the money was spent on",
                y_label="cost [USD]",
                categories=list(totals),
                parts={part.replace("_", " "): list(values) for part, values in by_part.items()},
            ),
        ]

    def service(self) -> list[Chart]:
        """The requests whose limits were broken, over time."""
        lines = []
        for policy in self.policies:
            own = self._own(self._intervals, policy)
            sums = own.groupby("interval_start_s")[["arrived", "served", "slo_violations"]].sum()
            broken = sums["arrived"] - sums["served"] + sums["slo_violations"]
            share = [100 * b / a if a else None for b, a in zip(broken.tolist(), sums["arrived"].tolist(), strict=True)]
            lines.append(self._curve(policy, [*sums.index, self._horizon_s], share, steps=True))
        title = "Requests that were not served, or served beyond a limit of their type"
        return [self._over_time("violations_over_time", title, "share of the interval's arrivals [%]", lines)]

    def fleet(self) -> list[Chart]:
        """What was rented, and whether it was enough."""
        rented = {policy: self._rented(self._own(self._rentals, policy)) for policy in self.policies}
        most_gpus = max(
            (np.sum([*counts.values()], axis=0).max() for _, counts in rented.values() if counts), default=1.0
        )
        most_replicas = max(self._load["replicas_needed"].max(), self._load["replicas_ready"].max(), 1.0)
        x_range = 0.0, (self._horizon_s or 1.0) / self._unit_s
        gpus, load = [], []
        for number, policy in enumerate(self.policies):  # names of policies may differ in nothing that a key can hold
            times_s, counts = rented[policy]
            gpus.append(
                AreaChart(
                    key=f"gpus_{number}",
                    title=policy,
                    x_label=self._time,
                    y_label="GPUs rented",
                    x=(times_s / self._unit_s).tolist(),
                    areas={tier: values.tolist() for tier, values in counts.items()},
                    x_range=x_range,
                    y_range=(0.0, ROOM * most_gpus),
                )
            )
            own = self._own(self._load, policy)
            edges_s = [*own["start_s"], *own["end_s"].tail(1)]
            load.append(
                LineChart(
                    key=f"load_{number}",
                    title=policy,
                    x_label=self._time,
                    y_label="replicas",
                    lines=[
                        self._curve("needed by the demand", edges_s, own["replicas_needed"].tolist(), steps=True),
                        self._curve("ready", edges_s, own["replicas_ready"].tolist(), steps=True),
                    ],
                    x_range=x_range,
                    y_range=(0.0, ROOM * most_replicas),
                )
            )
        return [
            Panels(key="gpus_over_time", title="GPUs rented, by tier", charts=gpus),
            Panels(
                key="demand_and_capacity",
                title="Demand against capacity",
                charts=load,
                note="Needed: the replicas that the requests arriving then keep busy at the load at which their limits "
                "on the time per token are just met.",
            ),
        ]

    def _rented(self, rentals: pd.DataFrame) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
        """Times at which the fleet changed within the horizon, and the GPUs from each on, by tier."""
        changes = rentals[["rent_s", "end_s"]].to_numpy(dtype=float).ravel()
        times_s = np.unique([0.0, self._horizon_s, *changes.clip(0.0, self._horizon_s)])
        if len(times_s) > MOST_POINTS:
            times_s = np.linspace(0.0, self._horizon_s, MOST_POINTS)
        stays = rentals[["tier", "gpus", "rent_s", "end_s"]].itertuples(index=False, name=None)
        return times_s, gpus_by_tier(stays, times_s)

    def latency(self) -> list[Chart]:
        """The distributions of the times of the requests."""
        times = self._times()
        charts = []
        for column, name, unit, scale in LATENCIES:
            lines = []
            for policy in self.policies:
                values, shares = times[policy, column].curve(MOST_POINTS)
                shown = values > 0  # nothing else has a place on a logarithmic axis
                if shown.any():
                    x, y = (scale * values[shown]).tolist(), (100 * shares[shown]).tolist()
                    lines.append(Line(name=policy, x=x, y=y, markers=False))
            charts.append(
                LineChart(
                    key=column.removesuffix("_s"),
                    title=name,
                    x_label=f"{name.lower()} [{unit}]",
                    y_label="requests within that time [%]",
                    lines=merged(lines),
                    log_x=True,
                    y_range=(0.0, 101.0),
                )
            )
        return [Panels(key="latency_cdf", title="How long requests took", charts=charts)]

    def _times(self) -> dict[tuple[str, str], Quantiles]:
        """Every time of every request, taken in row group by row group: memory does not grow with the trace."""
        columns = [column for column, *_ in LATENCIES]
        found = {(policy, column): Quantiles() for policy in self.policies for column in columns}
        try:
            with pq.ParquetFile(self._requests) as file:
                missing = {"policy", *columns} - set(file.schema_arrow.names)
                if missing:
                    raise ValueError(f"it has no column {', '.join(sorted(missing))}")
                for batch in file.iter_batches(columns=["policy", *columns]):
                    frame = batch.to_pandas()
                    for policy, own in frame.groupby("policy", sort=False):
                        for column in columns:
                            if (str(policy), column) in found:
                                found[str(policy), column].add(own[column].to_numpy(dtype=np.float64))
        except (OSError, ValueError) as error:
            raise _unreadable(self._requests, error) from None
        return found

    def figures(self) -> list[Chart]:
        """All of them, in the order of the report."""
        return [*self.money(), *self.service(), *self.fleet(), *self.latency()]


def draw_replay(directory: Path) -> list[Path]:
    """Draw the charts of a run directory into it as PNG; return the files."""
    from experiments.show.figures import draw  # here: Matplotlib takes longer to load than most commands

    return draw(ReplayCharts(directory).figures(), directory, suffixes=(".png",))


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a table of a run directory.

    Raises
    ------
    InputError
        If it is missing, damaged or lacks one of them.
    """
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    if not path.exists():
        return InputError(f"{path}: is missing: the run directory is not whole")
    return InputError(f"{path}: cannot be read: {str(error).partition(chr(10))[0]}")
