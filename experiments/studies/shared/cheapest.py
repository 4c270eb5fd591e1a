"""Which policy keeps violations under a limit at the least cost, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from experiments.studies.shared.view import mean_of, policies_of, rows_where, values_of

LIMITS = (1.0, 5.0)  # percent violated
VERIFIED = "as verified"  # the setting of plans whose headroom was found by simulation


@dataclass(frozen=True, slots=True)
class _Point:
    """Means over the seeds of a policy with its headroom."""

    name: str
    cost_usd: float
    share: float  # percent


def cheapest(frame: pd.DataFrame, where: str, measure: str, *, by_setting: bool) -> list[str]:
    """In words, for each of `LIMITS`: which is cheapest at each factor, neighbouring factors together.

    Parameters
    ----------
    where, measure
        Words for what the frame holds and for what the limits are on.
    by_setting
        Whether a policy with each of its settings (its headroom) is a point of its own.
    """
    found = {factor: _points(rows_where(frame, factor=factor), by_setting) for factor in values_of(frame, "factor")}
    lines = []
    for most in LIMITS:
        best = [(factor, _winner(points, most)) for factor, points in found.items() if points]
        told = []
        for (name, kept), group in groupby(best, key=lambda item: (item[1][0].name, item[1][1])):
            at = list(group)
            factors = _range([factor for factor, _ in at], "")
            if kept:
                told.append(f"{name} at {factors} ({_range([point.cost_usd for _, (point, _) in at], '.2f')} USD)")
            else:
                shares = _range([point.share for _, (point, _) in at], ".1f")
                told.append(f"none at {factors} (the least is {shares} %, {name})")
        if told:
            lines.append(f"{where}, cheapest with at most {most:g} % {measure}: {'; '.join(told)}.")
    return lines


def _points(here: pd.DataFrame, by_setting: bool) -> list[_Point]:
    """Of what has a plan for every seed; those that come to the same are one."""
    points: dict[tuple[float, float], _Point] = {}
    for policy in policies_of(here):
        mine = rows_where(here, policy=policy)
        for setting in dict.fromkeys(mine["setting"]) if by_setting else (None,):
            own = rows_where(mine, setting=setting)
            cost, share = mean_of(own, "cost_usd"), mean_of(own, "violation_share")
            if cost is None or share is None or not own["feasible"].astype(bool).all():
                continue
            same = round(cost, 6), round(share, 8)
            name = named(policy, setting)
            points[same] = _Point(f"{points[same].name} = {name}" if same in points else name, cost, 100 * share)
    return list(points.values())


def _winner(points: list[_Point], most: float) -> tuple[_Point, bool]:
    """The cheapest that keeps to the limit and True, or the one that violates least and False."""
    kept = [point for point in points if point.share <= most]
    if kept:
        return min(kept, key=lambda point: point.cost_usd), True
    return min(points, key=lambda point: point.share), False


def named(policy: str, setting: str | None) -> str:
    """A policy with its headroom."""
    return policy if setting is None or setting == VERIFIED else f"{policy} at {setting}"


def _range(values: Sequence[float], form: str) -> str:
    low, high = (format(value, form or "g") for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
