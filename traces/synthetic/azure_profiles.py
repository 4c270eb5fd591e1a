"""The profiles that the package carries, made of the Azure traces.

`python -m traces.synthetic.azure_profiles azure-2023 CONV.csv CODE.csv` prints `traces/profiles/azure-2023.toml`, and
`... azure-2024 CONV.csv CODE.csv azure2024_hourly_requests.csv` the profile of 2024.
"""

import csv
import math
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from simulator.workload import Trace
from traces.formats.registry import read_trace
from traces.statistics.totals import index_of_dispersion
from traces.synthetic.fitting import ALL_TIME_SCALES_S, HOURS_OF_WEEK, fit_bursts, fit_profile, fit_silence
from traces.synthetic.profile import Profile, SourceProfile, profile_toml
from traces.synthetic.ratecurve import HOUR_S
from traces.synthetic.tokens import QUANTILE_LEVELS

AZURE_2023 = "azure-2023"
AZURE_2023_ATTRIBUTION = (
    "Azure LLM inference trace 2023, Microsoft, CC-BY-4.0; Patel et al., ISCA 2024; "
    "statistics computed for this project"
)
AZURE_2024 = "azure-2024"
AZURE_2024_ATTRIBUTION = (
    "Rate curves of 2024; bursts and tokens assumed from azure-2023. "
    "Curves: Azure LLM inference trace 2024, Microsoft, CC-BY-4.0; Stojkovic et al., DynamoLLM, HPCA 2025; counts "
    "by the hour, of the exact hours of conv from diegohommer/tcc-offloading-ai-edge (MIT, Copyright (c) 2026 Diego "
    "Hommerding Amorim), the others digitised for this project from the published plots. Bursts and tokens: Azure LLM "
    "inference trace 2023, Microsoft, CC-BY-4.0; Patel et al., ISCA 2024; statistics computed for this project"
)
AZURE_2024_ASSUMPTIONS = (
    "bursts are assumed from azure-2023: at the mean rate, within an hour, the index of dispersion of each source is "
    "the one of 2023, as if there were more users, each as bursty as then",
    "tokens are assumed from azure-2023: quantiles, and frequencies of the ranks of input and output together",
    "hours 24-47 of conv and 10-167 of code are digitised (error 1.2 %, at most 5 %), the others are exact; the days "
    "of conv are 12-18 May 2024, of which 17 and 18 May stand before the others, where code has 10 and 11 May",
)
AZURE_2024_START = datetime(2024, 5, 10, tzinfo=UTC)

WINDOWS_S = (1.0, 10.0, 60.0)
TIME_SCALES_S = (0.5, 3.0, 120.0)
"""Time scales of the log-normal factors. The longest gives an hour some thirty levels: with the 475 s that fit the
conversation trace best, one hour of the model has eight and its statistics scatter by a factor of two."""


def fit_source(trace: Trace, source: int) -> SourceProfile:
    """Measure one source of a trace and fit the factors of its arrival rate, as the profile azure-2023 was made."""
    mine = trace.source == source
    arrival_s = trace.arrival_s[mine] - trace.arrival_s[mine][0]
    gap_s = np.diff(arrival_s)
    span_s = float(arrival_s[-1])
    measured = {window_s: index_of_dispersion(arrival_s, window_s, span_s) for window_s in WINDOWS_S}
    rate_per_s = len(arrival_s) / span_s
    tokens = trace.input_tokens[mine], trace.output_tokens[mine]
    fitted = fit_bursts(rate_per_s, span_s, measured, fit_silence(gap_s, span_s), TIME_SCALES_S, followers=False)
    return SourceProfile(
        name=trace.sources[source],
        rate_per_s=rate_per_s,
        dispersion=measured,
        gap_cv=float(gap_s.std() / gap_s.mean()),
        spearman=float(spearmanr(*tokens).statistic),
        input_tokens=tuple(np.quantile(tokens[0], QUANTILE_LEVELS).tolist()),
        output_tokens=tuple(np.quantile(tokens[1], QUANTILE_LEVELS).tolist()),
        modulation=fitted.modulation,
    )


def azure_2024(conv: Path, code: Path, counts: Path) -> Profile:
    """The profile of 2024: its own rate curves, and the bursts and tokens of 2023."""
    fitted = fit_profile(read_trace(conv).trace, name=AZURE_2024, attribution=AZURE_2024_ATTRIBUTION)
    other = fit_profile(read_trace(code).trace, name=AZURE_2024, attribution=AZURE_2024_ATTRIBUTION)
    sources = []
    for source in (*fitted.sources, *other.sources):
        requests_per_h = _week_from_friday(counts, source.name)
        rate_per_s = math.fsum(requests_per_h) / HOURS_OF_WEEK / HOUR_S
        # No silence: with the users of 2024 there is always someone.
        bursts = fit_bursts(rate_per_s, HOUR_S, source.dispersion, (), ALL_TIME_SCALES_S, followers=True)
        sources.append(
            replace(
                source,
                rate_per_s=rate_per_s,
                gap_cv=None,
                requests_per_h=requests_per_h,
                modulation=bursts.modulation,
                follow_share=bursts.follow_share,
                follow_delay_s=bursts.follow_delay_s,
            )
        )
    return replace(fitted, sources=tuple(sources), assumptions=AZURE_2024_ASSUMPTIONS, curve_start=AZURE_2024_START)


def _week_from_friday(counts: Path, service: str) -> tuple[float, ...]:
    """Counts of one service by the hour of the week, which begins with the Friday that `AZURE_2024_START` is."""
    with counts.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["service"] == service]
    hours = [(datetime.fromisoformat(row["hour_utc"]) - AZURE_2024_START) // timedelta(hours=1) for row in rows]
    by_hour = {hour % HOURS_OF_WEEK: float(row["requests"]) for hour, row in zip(hours, rows, strict=True)}
    return tuple(by_hour[hour] for hour in range(HOURS_OF_WEEK))


def main(arguments: list[str]) -> None:
    """Print a profile of the package from the data that it was made of."""
    name, *paths = arguments
    if name == AZURE_2024:
        conv, code, counts = map(Path, paths)
        profile = azure_2024(conv, code, counts)
    else:
        profile = Profile(
            name=AZURE_2023,
            attribution=AZURE_2023_ATTRIBUTION,
            quantile_levels=QUANTILE_LEVELS,
            sources=tuple(fit_source(read_trace(Path(path)).trace, 0) for path in paths),
        )
    sys.stdout.write(profile_toml(profile))


if __name__ == "__main__":
    main(sys.argv[1:])
