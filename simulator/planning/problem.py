"""The planning problem: which configurations to rent and how to route the query types.

Symbols in brackets are those of arXiv 2604.07472. Capacity is one abstraction, whoever derives it: two arrays `load`
and `kv` hold the share of one replica of configuration `a` that the *whole* demand of type `i` would use, and a plan
with shares `x` and replicas `r` must satisfy::

    sum_i load[i, a] x[i, a] <= cap[a] r[a]        compute
    sum_i kv[i, a]   x[i, a] <= r[a]               KV cache

`paper_rows.py` and `batching_rows.py` derive the rows, each in the way of its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulator.catalog.configuration import Configuration, ModelSize, PairKey, TierSize
from simulator.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class CapacityRows(StrEnum):
    """How the capacity rows of a problem were derived."""

    PAPER = "paper"
    BATCHING = "batching"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryType:
    """One kind of query [index i] with its demand, limits and penalties."""

    name: str
    arrival_per_h: float  # [lambda_i]
    input_tokens: float  # mean [h_i]
    output_tokens: float  # mean [f_i]
    delay_slo_s: float  # [Delta_i]
    error_slo: float  # [epsilon_i]
    delay_penalty_usd_per_query_s: float = 0.0  # [rho_i]
    unmet_penalty_usd_per_query: float = 0.0  # [phi_i]
    unmet_cap: float = 1.0  # [zeta_i]
    token_storage_gb_per_token: float = 0.0  # [theta_i]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingTerms:
    """What a replica that is started or given up takes before it serves or is gone, while it is paid."""

    provisioning_s: float
    load_gb_per_s: float  # weights
    drain_s: float  # until the last requests of a surplus replica are done
    weight: float = 1.0  # how much of the price policies shall see: 0 none of it, above 1 more than is true


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemandQuantiles:
    """How far the demand may be from the planned one.

    Attributes
    ----------
    levels
        Of the quantiles, above 0 and below 1, rising.
    factor
        Shape (levels, types): quantile of the demand, relative to the planned demand of the type.
    """

    levels: tuple[float, ...]
    factor: FloatArray

    def __post_init__(self) -> None:
        self.factor.setflags(write=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanningProblem:
    """Everything a policy may know. Arrays are read-only; the first axis is the query type, the last the configuration.

    Attributes
    ----------
    delay_s, error
        Shape (types, configurations): mean delay [s] and expected error of one query [D_ijkc, e_ijk].
    load, kv
        Shape (types, configurations): share of one replica that the whole demand of the type would use (module text).
    cap
        Shape (configurations,): limit on the load of one replica; headroom enters here.
    allowed
        Shape (types, configurations): False where a route is ruled out whatever its share.
    moving
        Terms of leaving the fleet in force, None where that is free. No part of the cost of a plan; policies that
        re-plan may heed them.
    demand_quantiles
        What the forecast says of the demand's spread, None where nothing is known of it. The demand of the problem is
        the planned one whatever they say; policies that plan for several demands may heed them (`robust`).
    """

    name: str
    period_h: float
    budget_usd: float  # rental and storage of one period [delta]
    storage_price_usd_per_gb_h: float  # [p^s]
    storage_capacity_gb: float  # [C^s]
    max_replicas: int
    query_types: tuple[QueryType, ...]
    models: tuple[ModelSize, ...]
    tiers: tuple[TierSize, ...]
    configurations: tuple[Configuration, ...]
    delay_s: FloatArray
    error: FloatArray
    load: FloatArray
    kv: FloatArray
    cap: FloatArray
    allowed: BoolArray
    capacity_rows: CapacityRows
    moving: MovingTerms | None = None
    demand_quantiles: DemandQuantiles | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.query_types), len(self.configurations))
        for name in ("delay_s", "error", "load", "kv", "allowed"):
            array = getattr(self, name)
            if array.shape != shape:
                raise InputError(f"problem {self.name}: {name} has shape {array.shape}, expected {shape}")
            array.setflags(write=False)
        if self.cap.shape != shape[1:]:
            raise InputError(f"problem {self.name}: cap has shape {self.cap.shape}, expected {shape[1:]}")
        self.cap.setflags(write=False)
        known = self.demand_quantiles
        if known is not None and known.factor.shape != (len(known.levels), shape[0]):
            expected = (len(known.levels), shape[0])
            raise InputError(
                f"problem {self.name}: demand_quantiles has shape {known.factor.shape}, expected {expected}"
            )

    # -- indices ----------------------------------------------------------------------------------------------------

    @cached_property
    def type_index(self) -> dict[str, int]:
        return {query_type.name: i for i, query_type in enumerate(self.query_types)}

    @cached_property
    def configuration_index(self) -> dict[Configuration, int]:
        return {configuration: a for a, configuration in enumerate(self.configurations)}

    @cached_property
    def configurations_of_pair(self) -> dict[PairKey, IntArray]:
        """Configuration indices of each (model, tier), in order of first appearance."""
        groups: dict[PairKey, list[int]] = {}
        for a, configuration in enumerate(self.configurations):
            groups.setdefault(configuration.pair, []).append(a)
        return {pair: np.array(indices, dtype=np.int64) for pair, indices in groups.items()}

    @cached_property
    def pair_index(self) -> IntArray:
        """Shape (configurations,): number of the (model, tier) pair of each configuration."""
        order = {pair: number for number, pair in enumerate(self.configurations_of_pair)}
        return np.array([order[configuration.pair] for configuration in self.configurations], dtype=np.int64)

    @cached_property
    def model_by_name(self) -> dict[str, ModelSize]:
        return {model.name: model for model in self.models}

    @cached_property
    def tier_by_name(self) -> dict[str, TierSize]:
        return {tier.name: tier for tier in self.tiers}

    # -- demand and limits as arrays over types ---------------------------------------------------------------------

    def _per_type(self, attribute: str) -> FloatArray:
        return np.array([getattr(query_type, attribute) for query_type in self.query_types], dtype=np.float64)

    @cached_property
    def arrival_per_h(self) -> FloatArray:
        return self._per_type("arrival_per_h")

    @cached_property
    def delay_slo_s(self) -> FloatArray:
        return self._per_type("delay_slo_s")

    @cached_property
    def error_slo(self) -> FloatArray:
        return self._per_type("error_slo")

    @cached_property
    def unmet_cap(self) -> FloatArray:
        return self._per_type("unmet_cap")

    @cached_property
    def token_storage_gb(self) -> FloatArray:
        """Shape (types,): storage of one hour's tokens of each type [theta_i (h_i + f_i) lambda_i]."""
        tokens = self._per_type("input_tokens") + self._per_type("output_tokens")
        return self._per_type("token_storage_gb_per_token") * tokens * self.arrival_per_h

    # -- cost coefficients of one period ----------------------------------------------------------------------------

    @cached_property
    def gpus(self) -> IntArray:
        return np.array([configuration.gpus for configuration in self.configurations], dtype=np.int64)

    @cached_property
    def rent_usd(self) -> FloatArray:
        """Shape (configurations,): rent of one replica for the period."""
        price = [self.tier_by_name[configuration.tier].price_usd_per_gpu_h for configuration in self.configurations]
        return self.period_h * np.array(price, dtype=np.float64) * self.gpus

    @cached_property
    def model_storage_gb(self) -> FloatArray:
        """Shape (configurations,): storage of the weights, once per deployed pair [nu_k B_j]."""
        return np.array(
            [
                self.tier_by_name[c.tier].weight_factor * self.model_by_name[c.model].weights_gb
                for c in self.configurations
            ],
            dtype=np.float64,
        )

    @cached_property
    def model_storage_usd(self) -> FloatArray:
        return self.period_h * self.storage_price_usd_per_gb_h * self.model_storage_gb

    @cached_property
    def token_storage_usd(self) -> FloatArray:
        """Shape (types,): storage cost if the whole demand of the type is served."""
        return self.period_h * self.storage_price_usd_per_gb_h * self.token_storage_gb

    @cached_property
    def delay_usd_per_s(self) -> FloatArray:
        """Shape (types,): penalty for each second of mean delay of the whole demand of the type [rho_i lambda_i]."""
        return self.period_h * (self._per_type("delay_penalty_usd_per_query_s") * self.arrival_per_h)

    @cached_property
    def delay_penalty_usd(self) -> FloatArray:
        """Shape (types, configurations): delay penalty if the whole demand of the type is served there."""
        return self.delay_usd_per_s[:, None] * self.delay_s

    @cached_property
    def money_unit_usd(self) -> float:
        """About a percent of what a plan costs, as a power of two: solvers and searches have absolute tolerances.

        A plan is taken to cost what the whole demand costs where each type is served in fractions of replicas by the
        configuration that does it cheapest, or is left unmet if that is cheaper still. Powers of two divide exactly.
        """
        replicas = np.maximum(np.divide(self.load, self.cap, out=np.zeros_like(self.load), where=self.cap > 0), self.kv)
        serve_usd = self.delay_penalty_usd + self.token_storage_usd[:, None] + replicas * self.rent_usd
        cheapest_usd = np.where(self.allowed & np.isfinite(serve_usd), serve_usd, np.inf).min(axis=1, initial=np.inf)
        usd = np.minimum(cheapest_usd, self.unmet_usd).sum()
        for size in (usd, cheapest_usd[np.isfinite(cheapest_usd)].sum(), self.rent_usd.sum(), self.unmet_usd.sum()):
            if 0 < size < np.inf:
                return float(2.0 ** np.round(np.log2(size / 100)))
        return 1.0

    @cached_property
    def unmet_usd(self) -> FloatArray:
        """Shape (types,): penalty if no demand of the type is served."""
        return self.period_h * self._per_type("unmet_penalty_usd_per_query") * self.arrival_per_h
