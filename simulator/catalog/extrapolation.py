"""The calibration of a tier that was never measured: that of the nearest calibrated tier, by datasheet ratios."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from simulator.catalog.calibration import Calibration, Evidence, RooflineConstants
from simulator.catalog.values import Tier


def with_calibrations(tiers: Iterable[Tier], calibrations: Mapping[str, Calibration]) -> dict[str, Tier]:
    """Give each tier its calibration, or that of the nearest calibrated tier, marked as extrapolated."""
    by_name = {tier.name: tier for tier in tiers}
    return {
        name: replace(tier, calibration=calibrations.get(name) or _extrapolated(tier, by_name, calibrations))
        for name, tier in by_name.items()
    }


def _extrapolated(tier: Tier, tiers: Mapping[str, Tier], calibrations: Mapping[str, Calibration]) -> Calibration | None:
    """The calibration of the nearest tier, with the errors that such a step made where it could be measured."""
    known = [tiers[name] for name in calibrations if name in tiers]
    if not known:
        return None
    nearest = nearest_tier(tier, known)
    found = calibrations[nearest.name]
    constants = carried_over(found.constants, nearest, tier)
    return replace(found, tier=tier.name, evidence=Evidence.EXTRAPOLATED, basis=nearest.name, constants=constants)


def carried_over(constants: RooflineConstants, basis: Tier, tier: Tier) -> RooflineConstants:
    """The constants of one tier for another: shares and times as they are, bandwidths of links by datasheet ratio."""
    if basis.link_gb_s is None or tier.link_gb_s is None:
        return constants
    ratio = tier.link_gb_s / basis.link_gb_s
    links = {
        degree: replace(
            link,
            gb_per_s=ratio * link.gb_per_s,
            prompt_gb_per_s=ratio * link.prompt_gb_per_s,
            prompt_large_gb_per_s=ratio * link.prompt_large_gb_per_s,
        )
        for degree, link in constants.communication.items()
    }
    return replace(constants, communication=links)


def nearest_tier(tier: Tier, known: Iterable[Tier]) -> Tier:
    """The tier that another's constants are taken from; kinship of links and of formats counts before size."""

    def distance(other: Tier) -> tuple[bool, bool, bool, float]:
        eight_bit = {"fp8", "int8"}
        return (
            other.interconnect is not tier.interconnect,
            tier.precision != other.precision and not {tier.precision, other.precision} <= eight_bit,
            other.gpu != tier.gpu,
            abs(math.log(other.compute_tflops / tier.compute_tflops))
            + abs(math.log(other.bandwidth_gb_s / tier.bandwidth_gb_s)),
        )

    return min(known, key=distance)
