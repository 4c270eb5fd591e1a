"""The delay port: two questions about one configuration, asked by the planner and by the simulator alike."""

from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from simulator.catalog import LlmModel, Tier
from simulator.moments import TokenMoments
from simulator.ticks import to_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPhaseDelay:
    """Delay of one request as the planner sees it, per token of prompt and of answer."""

    prefill_s_per_token: float
    decode_s_per_token: float  # with the hops between pipeline stages

    @overload
    def delay_s(self, input_tokens: float, output_tokens: float) -> float: ...
    @overload
    def delay_s(self, input_tokens: npt.NDArray[Any], output_tokens: npt.NDArray[Any]) -> npt.NDArray[np.float64]: ...
    def delay_s(self, input_tokens: Any, output_tokens: Any) -> Any:
        """Delay of a request, or of each of many (arrays of one shape) [D_ijkc]."""
        return input_tokens * self.prefill_s_per_token + output_tokens * self.decode_s_per_token


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTicks:
    """A `StepCost` in whole ticks (see `simulator/ticks.py`): what an engine counts with."""

    base: int
    prefill_per_token: int
    decode_per_sequence: int
    context_per_token: int

    def step(self, prefill_tokens: int, sequences: int, context_tokens: int) -> int:
        """Duration of one step; the arguments are those of `StepCost.step_s`."""
        return (
            self.base
            + self.prefill_per_token * prefill_tokens
            + self.decode_per_sequence * sequences
            + self.context_per_token * context_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Duration of one engine step, a + b x prefill tokens + c x sequences + d x context tokens."""

    base_s: float  # [a]
    prefill_s_per_token: float  # [b]
    decode_s_per_sequence: float  # [c]
    context_s_per_token: float  # [d]

    def step_s(self, prefill_tokens: float, sequences: float, context_tokens: float) -> float:
        """Duration of one step of one replica.

        Parameters
        ----------
        prefill_tokens
            Prompt tokens processed in the step.
        sequences
            Sequences that decode one token each.
        context_tokens
            Tokens in the KV cache of these sequences together.
        """
        return (
            self.base_s
            + self.prefill_s_per_token * prefill_tokens
            + self.decode_s_per_sequence * sequences
            + self.context_s_per_token * context_tokens
        )

    def work_s(
        self, input_tokens: npt.NDArray[np.float64], output_tokens: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """What requests take of a replica's time beside the base of the steps, b h + c (f - 1) + d (f - 1) (h + f / 2).

        Arrays of one shape; the prefill of h tokens gives the first of f tokens.
        """
        decode = np.maximum(output_tokens - 1, 0.0)
        return np.asarray(
            self.prefill_s_per_token * input_tokens
            + self.decode_s_per_sequence * decode
            + self.context_s_per_token * decode * (input_tokens + output_tokens / 2)
        )

    def decode_work_s(self, tokens: TokenMoments) -> npt.NDArray[np.float64]:
        """The part of `work_s` after the prefill, of requests by their moments; each of one output token or more."""
        n, h, f = tokens.requests, tokens.input_tokens, tokens.output_tokens
        context_steps = tokens.input_output - h + (tokens.output_squared - f) / 2
        return np.asarray(self.decode_s_per_sequence * (f - n) + self.context_s_per_token * context_steps)

    def planned_work_s(self, tokens: TokenMoments) -> npt.NDArray[np.float64]:
        """The work of requests by their moments as capacity rows count it, b h + c f + d (h f + f^2 / 2).

        It is as if the prefill gave no token: on the safe side of `work_s` by one decode step a request.
        """
        return np.asarray(
            self.prefill_s_per_token * tokens.input_tokens
            + self.decode_s_per_sequence * tokens.output_tokens
            + self.context_s_per_token * tokens.context_steps
        )

    def share_for_work(self, tpot_s: Any) -> Any:
        """Share of the time that work may take where a step may take `tpot_s`, 1 - a / T; below 0 if a alone is more.

        If the work of the requests takes the share beta of the time, a step lasts a / (1 - beta).
        """
        return 1 - self.base_s / tpot_s

    def scaled(self, factor: float) -> "StepCost":
        """The step cost of a world that is `factor` times as slow."""
        return StepCost(
            base_s=factor * self.base_s,
            prefill_s_per_token=factor * self.prefill_s_per_token,
            decode_s_per_sequence=factor * self.decode_s_per_sequence,
            context_s_per_token=factor * self.context_s_per_token,
        )

    def ticks(self) -> StepTicks:
        """The coefficients rounded to ticks, once, so that all engines count the same.

        Half a tick is 0.5 ps. The smallest coefficient, time per context token, is some nanoseconds: off by 2e-4 at
        most.

        Raises
        ------
        InputError
            If a coefficient is negative or beyond the range of ticks.
        """
        return StepTicks(
            base=to_ticks(self.base_s),
            prefill_per_token=to_ticks(self.prefill_s_per_token),
            decode_per_sequence=to_ticks(self.decode_s_per_sequence),
            context_per_token=to_ticks(self.context_s_per_token),
        )


class DelayModel(Protocol):
    """A delay model answers the planner and the engine from the same parameters, and knows neither of them.

    `n` is the tensor-parallel and `m` the pipeline-parallel degree, both at least 1. Whether the weights fit is not
    asked here: see `simulator.catalog.fits`.
    """

    def request_delay(self, model: LlmModel, tier: Tier, n: int, m: int) -> TwoPhaseDelay:
        """Delay of one request under the load that the model assumes."""
        ...

    def step_cost(self, model: LlmModel, tier: Tier, n: int, m: int) -> StepCost:
        """Cost of one step of one replica."""
        ...
