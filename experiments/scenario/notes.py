"""What a run has to say once about its scenario: models that are skipped, and how far step times can be trusted."""

from collections.abc import Sequence

from experiments.scenario.scenario import Scenario
from simulator.catalog import Calibration, Tier
from simulator.delay import RooflineDelay


def scenario_notes(scenario: Scenario) -> list[str]:
    """The models that the scenario cannot plan with, each with the reason, and what is known of its step times."""
    return [f"skipped: {reason}" for reason in scenario.choice.skipped] + calibration_notes(scenario)


def calibration_notes(scenario: Scenario) -> list[str]:
    """How far step times of the scenario's tiers can be trusted, and what lies outside the range of the measurements,
    a line each.

    Empty under a delay model that is not fitted to measurements.
    """
    model = scenario.delay_model
    if not isinstance(model, RooflineDelay):
        return []
    engine = model.engine.name
    lines = [
        f"step times of {tier.name}: {tier.calibration.label} (mean errors); engine {engine}"
        for tier in scenario.catalog.tiers.values()
        if tier.calibration is not None
    ]
    used = scenario.configurations
    if any(c.pipeline_parallel > 1 for c in used):
        lines.append("step times with PP > 1 are not validated: no public measurements were found")
    outside: dict[str, list[str]] = {}
    for tier in scenario.catalog.tiers.values():
        calibration = tier.calibration
        if calibration is not None:
            degrees = {c.tensor_parallel for c in used if c.tier == tier.name}
            for text in _outside(calibration, sorted(degrees), scenario.file.engine.token_budget):
                outside.setdefault(text, []).append(tier.name)
    lines += [f"outside the measured range: {text} ({', '.join(tiers)})" for text, tiers in outside.items()]
    return lines


def _outside(calibration: Calibration, degrees: Sequence[int], token_budget: int) -> list[str]:
    known = calibration.range
    beyond = [degree for degree in degrees if not 1 <= degree <= max(known.tensor_parallel)]
    found = [f"TP {', '.join(map(str, beyond))}, measured up to {max(known.tensor_parallel)}"] if beyond else []
    if token_budget > known.prompt_tokens:
        found.append(f"steps of {token_budget} prompt tokens, measured up to {known.prompt_tokens}")
    return found


def calibration_evidence(tiers: Sequence[Tier]) -> list[dict[str, object]]:
    """Evidence and expected errors of the calibrations of some tiers, for results."""
    return [
        {
            "tier": tier.name,
            "evidence": str(tier.calibration.evidence),
            "basis": tier.calibration.basis,
            "source": tier.calibration.source.citation,
            **{
                f"{phase}_mape": None if error is None else error.mape
                for phase, error in tier.calibration.expected.items()
            },
        }
        for tier in tiers
        if tier.calibration is not None
    ]
