"""What a synthetic trace needs to know of a real one: `traces/profiles/*.toml`."""

import itertools
import json
import math
import tomllib
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.errors import InputError
from simulator.validation import StrictModel, validated


@dataclass(frozen=True, slots=True, kw_only=True)
class RateComponent:
    """One factor of the arrival rate: a level of mean one, drawn anew at the points of a Poisson process.

    Its autocovariance is `squared_cv * exp(-lag / time_scale_s)`.

    Attributes
    ----------
    time_scale_s
        Mean time from one draw to the next.
    squared_cv
        Variance of the level (its mean is one). At least `1 / on_share - 1`.
    on_share
        Probability of a level above zero, which is log-normal; with the rest of the probability it is zero: silence.
    """

    time_scale_s: float
    squared_cv: float
    on_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProfile:
    """Statistics of one source of requests.

    Attributes
    ----------
    rate_per_s
        Mean arrival rate.
    dispersion
        Index of dispersion of counts (variance over mean) within an hour by window in seconds, at the mean rate.
    gap_cv
        Coefficient of variation of the times between arrivals, None where nobody knows it.
    spearman
        Rank correlation of input and output tokens.
    input_tokens, output_tokens
        Quantiles at `Profile.quantile_levels`.
    modulation
        Fitted factors of the arrival rate.
    requests_per_h
        Rate curve: counts of successive hours from `Profile.curve_start` on, after which it repeats. Empty: none.
    follow_share
        Share of the requests that follow another one closely, as a client does that asks several things at once.
    follow_delay_s
        Mean time after that other one.
    joint
        Requests by the rank of their input (rows, of equal shares) and of their output (columns, likewise), up to a
        factor. Empty: the tokens are joined by their rank correlation alone.
    """

    name: str
    rate_per_s: float
    dispersion: dict[float, float]
    gap_cv: float | None
    spearman: float
    input_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]
    modulation: tuple[RateComponent, ...]
    requests_per_h: tuple[float, ...] = ()
    follow_share: float = 0.0
    follow_delay_s: float = 0.0
    joint: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Statistics of a trace, source by source.

    Attributes
    ----------
    assumptions
        What is not measured of this trace, a sentence each.
    quantile_levels
        Rise from 0 to 1.
    curve_start
        When the rate curves begin, None where there are none or nobody knows.
    """

    name: str
    attribution: str
    quantile_levels: tuple[float, ...]
    sources: tuple[SourceProfile, ...]
    assumptions: tuple[str, ...] = ()
    curve_start: datetime | None = None


MARGIN = 0.02  # by which the rows and columns of `joint` may differ from equal shares, and a rate from its curve

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Tokens = Annotated[float, Field(ge=0, le=2**31 - 1)]


class _RateComponent(StrictModel):
    time_scale_s: Annotated[float, Field(ge=0.001)]
    squared_cv: Annotated[float, Field(ge=0)]
    on_share: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _silence_explains_less_than_all(self) -> Self:
        # Fitted values are rounded: allow for the last digit.
        if (1 + self.squared_cv) * self.on_share < 1 - 1e-3:
            raise ValueError(f"squared_cv must be at least 1 / on_share - 1 = {1 / self.on_share - 1:.6g}")
        return self


class _Dispersion(StrictModel):
    window_s: Positive
    index: Positive


class _Source(StrictModel):
    name: Annotated[str, Field(min_length=1)]
    rate_per_s: Positive
    gap_cv: Positive | None = None
    spearman: Annotated[float, Field(ge=-1, le=1)]
    dispersion: tuple[_Dispersion, ...]
    input_tokens: tuple[Tokens, ...]
    output_tokens: tuple[Tokens, ...]
    modulation: tuple[_RateComponent, ...]
    requests_per_h: tuple[NotNegative, ...] = ()
    follow_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    follow_delay_s: Annotated[float, Field(ge=0, le=1)] = 0.0
    joint: tuple[tuple[NotNegative, ...], ...] = ()

    @model_validator(mode="after")
    def _curve_has_the_rate(self) -> Self:
        mean_per_s = math.fsum(self.requests_per_h) / max(len(self.requests_per_h), 1) / 3600
        if self.requests_per_h and abs(mean_per_s - self.rate_per_s) > MARGIN * self.rate_per_s:
            raise ValueError(f"rate_per_s must be the mean of requests_per_h, {mean_per_s:.6g} per second")
        return self

    @model_validator(mode="after")
    def _joint_keeps_the_quantiles(self) -> Self:
        if not self.joint:
            return self
        total = sum(map(sum, self.joint))
        if len({len(row) for row in self.joint}) > 1 or total == 0:
            raise ValueError("joint must have rows of equal lengths and a number above zero")
        for what, lines in (("row", self.joint), ("column", tuple(zip(*self.joint, strict=True)))):
            if any(abs(math.fsum(line) * len(lines) / total - 1) > MARGIN for line in lines):
                raise ValueError(f"joint: every {what} must have the same sum, or the token quantiles are not kept")
        return self


class _Profile(StrictModel):
    format: Literal["tokenfleet-profile/1"]
    name: str
    attribution: str
    assumptions: tuple[str, ...] = ()
    curve_start: datetime | None = None
    quantile_levels: tuple[float, ...]
    sources: Annotated[tuple[_Source, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        levels, problems = self.quantile_levels, []
        if levels[:1] != (0.0,) or levels[-1:] != (1.0,) or any(a >= b for a, b in itertools.pairwise(levels)):
            problems.append("quantile_levels must rise from 0 to 1")
        names = [source.name for source in self.sources]
        if len({len(source.requests_per_h) for source in self.sources}) > 1:
            problems.append("requests_per_h must have the same length in all sources")
        problems += [f"sources names {name!r} twice" for name in sorted({n for n in names if names.count(n) > 1})]
        for i, source in enumerate(self.sources):
            for field in ("input_tokens", "output_tokens"):
                quantiles = getattr(source, field)
                if len(quantiles) != len(levels):
                    problems.append(f"sources[{i}].{field} has {len(quantiles)} values, expected {len(levels)}")
                if any(a > b for a, b in itertools.pairwise(quantiles)):
                    problems.append(f"sources[{i}].{field} must not fall")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def list_profiles() -> tuple[str, ...]:
    """Names of the profiles that the package carries."""
    files = (resources.files("traces") / "profiles").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_profile(name: str = "azure-2023") -> Profile:
    """Load a profile of the package.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    if name not in list_profiles():
        raise InputError(f"there is no trace profile {name!r}; known profiles: {', '.join(list_profiles())}")
    file = resources.files("traces") / "profiles" / f"{name}.toml"
    return parse_profile(file.read_text(encoding="utf-8"), name=f"traces/profiles/{name}.toml")


def read_profile(name_or_path: str) -> Profile:
    """Load a profile of the package by its name, or a file in .toml.

    Raises
    ------
    InputError
        If there is none, or the file is no profile.
    """
    if not name_or_path.endswith(".toml"):
        return load_profile(name_or_path)
    try:
        text = Path(name_or_path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name_or_path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{name_or_path}: expected text in UTF-8") from None
    return parse_profile(text, name=name_or_path)


def parse_profile(text: str, *, name: str) -> Profile:
    """Parse a profile file (`tokenfleet-profile/1`) that messages call `name`.

    Raises
    ------
    InputError
        Naming each field that is missing, unknown, out of range or inconsistent.
    """
    try:
        stated = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: expected TOML: {error}") from None
    raw = validated(_Profile, stated, name)
    return Profile(
        name=raw.name,
        attribution=raw.attribution,
        assumptions=raw.assumptions,
        curve_start=raw.curve_start,
        quantile_levels=raw.quantile_levels,
        sources=tuple(
            SourceProfile(
                name=source.name,
                rate_per_s=source.rate_per_s,
                dispersion={item.window_s: item.index for item in source.dispersion},
                gap_cv=source.gap_cv,
                spearman=source.spearman,
                input_tokens=source.input_tokens,
                output_tokens=source.output_tokens,
                modulation=tuple(RateComponent(**item.model_dump()) for item in source.modulation),
                requests_per_h=source.requests_per_h,
                follow_share=source.follow_share,
                follow_delay_s=source.follow_delay_s,
                joint=source.joint,
            )
            for source in raw.sources
        ),
    )


def profile_toml(profile: Profile) -> str:
    """The profile as a `tokenfleet-profile/1` file: four significant digits, one decimal in token quantiles."""
    lines = [
        'format = "tokenfleet-profile/1"',
        f"name = {_text(profile.name)}",
        f"attribution = {_text(profile.attribution)}",
    ]
    if profile.assumptions:
        lines += ["assumptions = [", *(f"  {_text(sentence)}," for sentence in profile.assumptions), "]"]
    if profile.curve_start is not None:
        lines.append(f"curve_start = {profile.curve_start.isoformat()}")
    lines.append(_array("quantile_levels", profile.quantile_levels))
    for source in profile.sources:
        lines += ["\n[[sources]]", f"name = {_text(source.name)}", *_source_lines(source, profile)]
    return "\n".join(lines) + "\n"


def _source_lines(source: SourceProfile, profile: Profile) -> list[str]:
    measured = [f"rate_per_s = {source.rate_per_s:.4g}"]
    if source.gap_cv is not None:
        measured.append(f"gap_cv = {source.gap_cv:.4g}")
    fitted = []
    if source.follow_share:
        fitted = [f"follow_share = {source.follow_share:.4g}", f"follow_delay_s = {source.follow_delay_s:.4g}"]
    curve = []
    if source.requests_per_h:
        curve = ["# 24 hours a line", _array("requests_per_h", source.requests_per_h, per_line=24)]
    joint = []
    if source.joint:
        rows = ("  [" + ", ".join(f"{round(value, 1):g}" for value in row) + "]," for row in source.joint)
        joint = ["# requests by the rank of their input (rows) and of their output (columns)", "joint = [", *rows, "]"]
    return [
        "# measured, or assumed as stated above" if profile.assumptions else "# measured",
        *measured,
        f"spearman = {source.spearman:.4g}",
        "dispersion = [",
        *(f"  {{ window_s = {w:g}, index = {index:.4g} }}," for w, index in source.dispersion.items()),
        "]",
        *curve,
        _array("input_tokens", source.input_tokens),
        _array("output_tokens", source.output_tokens),
        *joint,
        "# fitted to rate, dispersion and long gaps by traces/synthetic/fitting.py",
        *fitted,
        "modulation = [",
        *(f"  {_component(component)}," for component in source.modulation),
        "]",
    ]


def _text(value: str) -> str:
    """A TOML string: of what JSON escapes TOML knows all."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _component(component: RateComponent) -> str:
    fields = {name: getattr(component, name) for name in ("time_scale_s", "squared_cv", "on_share")}
    return "{ " + ", ".join(f"{name} = {value:.4g}" for name, value in fields.items()) + " }"


def _array(name: str, values: tuple[float, ...], per_line: int = 15) -> str:
    texts = [f"{round(value, 4 if value < 1 else 1):.10g}" for value in values]
    rows = [", ".join(texts[k : k + per_line]) for k in range(0, len(texts), per_line)]
    return f"{name} = [\n" + "".join(f"  {row},\n" for row in rows) + "]"
