"""Delay models: how long a request and an engine step take. To add one, add its line to `DELAY_MODELS`."""

from collections.abc import Callable

from simulator.delay.constant import ConstantDelay
from simulator.delay.port import DelayModel, StepCost, StepTicks, TwoPhaseDelay

DELAY_MODELS: dict[str, Callable[[], DelayModel]] = {
    "constant": ConstantDelay,
}

__all__ = ["DELAY_MODELS", "ConstantDelay", "DelayModel", "StepCost", "StepTicks", "TwoPhaseDelay"]
