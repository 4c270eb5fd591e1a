"""From a real trace to the profile that `traces.synthetic` generates from.

`python -m traces.fitting CONV.csv CODE.csv` prints `traces/profiles/azure-2023.toml`.
"""

import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from simulator.workload import Trace
from traces.profile import Profile, RateComponent, SourceProfile
from traces.registry import read_trace
from traces.synthetic import model_dispersion

AZURE_2023 = "azure-2023"
AZURE_2023_ATTRIBUTION = (
    "Azure LLM inference trace 2023, Microsoft, CC-BY-4.0; Patel et al., ISCA 2024; "
    "statistics computed for this project"
)

WINDOWS_S = (1.0, 10.0, 60.0)
_PERCENT = tuple(round(0.01 * k, 2) for k in range(1, 100))
QUANTILE_LEVELS = (0.0, 0.001, 0.005, *_PERCENT, 0.9925, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 1.0)
"""Fine at the upper end, where the mean and more so the variance of the tokens are made."""

TIME_SCALES_S = (0.5, 3.0, 120.0)
"""Time scales of the log-normal factors. The longest gives an hour some thirty levels: with the 475 s that fit the
conversation trace best, one hour of the model has eight and its statistics scatter by a factor of two."""

SILENCE_S = 10.0
"""Gaps longer than this are silence, not chance: at the mean rates of the trace they would never occur."""


def index_of_dispersion(arrival_s: npt.NDArray[np.float64], window_s: float, span_s: float) -> float:
    """Variance over mean of the counts in the full windows of [0, span_s)."""
    windows = int(span_s // window_s)
    counts, _ = np.histogram(arrival_s, bins=windows, range=(0.0, windows * window_s))
    return float(counts.var() / counts.mean())


def fit_source(trace: Trace, source: int) -> SourceProfile:
    """Measure one source of a trace and fit the factors of its arrival rate."""
    mine = trace.source == source
    arrival_s = trace.arrival_s[mine] - trace.arrival_s[mine][0]
    gap_s = np.diff(arrival_s)
    span_s = float(arrival_s[-1])
    measured = {window_s: index_of_dispersion(arrival_s, window_s, span_s) for window_s in WINDOWS_S}
    rate_per_s = len(arrival_s) / span_s
    tokens = trace.input_tokens[mine], trace.output_tokens[mine]
    return SourceProfile(
        name=trace.sources[source],
        rate_per_s=rate_per_s,
        dispersion=measured,
        gap_cv=float(gap_s.std() / gap_s.mean()),
        spearman=float(spearmanr(*tokens).statistic),
        input_tokens=tuple(np.quantile(tokens[0], QUANTILE_LEVELS).tolist()),
        output_tokens=tuple(np.quantile(tokens[1], QUANTILE_LEVELS).tolist()),
        modulation=_fit_log_normal(rate_per_s, span_s, measured, _fit_silence(gap_s, span_s)),
    )


def _fit_silence(gap_s: npt.NDArray[np.float64], span_s: float) -> tuple[RateComponent, ...]:
    """An on-off factor from the long gaps, none if there are too few.

    Exponential silence of mean m is seen above the threshold only, where its excess has the same mean m and the share
    exp(-threshold / m) of its number.
    """
    long_s = gap_s[gap_s > SILENCE_S]
    if len(long_s) < 10:
        return ()
    off_s = float(long_s.mean()) - SILENCE_S
    on_s = span_s / (len(long_s) * math.exp(SILENCE_S / off_s)) - off_s
    on_share = on_s / (on_s + off_s)
    return (RateComponent(time_scale_s=1 / (1 / on_s + 1 / off_s), squared_cv=1 / on_share - 1, on_share=on_share),)


def _fit_log_normal(
    rate_per_s: float, span_s: float, measured: dict[float, float], silence: tuple[RateComponent, ...]
) -> tuple[RateComponent, ...]:
    """Log-normal factors at `TIME_SCALES_S` whose variances bring the dispersion nearest to the measured one.

    Least squares of the logarithms over all windows; factors of no effect are left out.
    """

    def factors(squared_cv: npt.NDArray[np.float64]) -> tuple[RateComponent, ...]:
        pairs = zip(TIME_SCALES_S, squared_cv.tolist(), strict=True)
        return *(RateComponent(time_scale_s=t, squared_cv=v) for t, v in pairs if v > 1e-4), *silence

    def misfit(squared_cv: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        model = [model_dispersion(rate_per_s, factors(squared_cv), window_s, span_s) for window_s in measured]
        return np.log(model) - np.log(list(measured.values()))

    fit = least_squares(misfit, np.full(len(TIME_SCALES_S), 0.1), bounds=(0.0, np.inf))
    return factors(fit.x)


def profile_toml(profile: Profile) -> str:
    """The profile as a `tokenfleet-profile/1` file: four significant digits, one decimal in token quantiles."""
    lines = [
        'format = "tokenfleet-profile/1"',
        f'name = "{profile.name}"',
        f'attribution = "{profile.attribution}"',
        _array("quantile_levels", profile.quantile_levels),
    ]
    for source in profile.sources:
        lines += [
            "\n[[sources]]",
            f'name = "{source.name}"',
            "# measured",
            f"rate_per_s = {source.rate_per_s:.4g}",
            f"gap_cv = {source.gap_cv:.4g}",
            f"spearman = {source.spearman:.4g}",
            "dispersion = [",
            *(f"  {{ window_s = {w:g}, index = {index:.4g} }}," for w, index in source.dispersion.items()),
            "]",
            _array("input_tokens", source.input_tokens),
            _array("output_tokens", source.output_tokens),
            "# fitted to rate, dispersion and long gaps by traces/fitting.py",
            "modulation = [",
            *(f"  {_component(component)}," for component in source.modulation),
            "]",
        ]
    return "\n".join(lines) + "\n"


def _component(component: RateComponent) -> str:
    fields = {name: getattr(component, name) for name in ("time_scale_s", "squared_cv", "on_share")}
    return "{ " + ", ".join(f"{name} = {value:.4g}" for name, value in fields.items()) + " }"


def _array(name: str, values: tuple[float, ...], per_line: int = 15) -> str:
    texts = [f"{round(value, 4 if value < 1 else 1):.10g}" for value in values]
    rows = [", ".join(texts[k : k + per_line]) for k in range(0, len(texts), per_line)]
    return f"{name} = [\n" + "".join(f"  {row},\n" for row in rows) + "]"


def main(paths: list[str]) -> None:
    """Print the profile of Azure trace files."""
    traces = [read_trace(Path(path)).trace for path in paths]
    profile = Profile(
        name=AZURE_2023,
        attribution=AZURE_2023_ATTRIBUTION,
        quantile_levels=QUANTILE_LEVELS,
        sources=tuple(fit_source(trace, 0) for trace in traces),
    )
    sys.stdout.write(profile_toml(profile))


if __name__ == "__main__":
    main(sys.argv[1:])
