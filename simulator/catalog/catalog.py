"""The catalog: every model and GPU tier that can be planned with, and a choice among them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

from simulator.catalog.calibration import ServingEngine
from simulator.catalog.configuration import ModelSize, TierSize
from simulator.catalog.extrapolation import with_calibrations
from simulator.catalog.reader import Blocks, read_blocks
from simulator.catalog.source import Source, SourceKind
from simulator.catalog.values import Gpu, LlmModel, Precision, StatedValue, Tier
from simulator.errors import InputError
from simulator.validation import closest

SHIPPED = ("gpus.toml", "models.toml", "calibrations.toml", "engines.toml")
BYTES_PER_MB = 1e6
_OVERRIDE = Source(name="override", kind=SourceKind.ASSUMED, citation="price given by the user for this run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Models and tiers by name, in the order of their files, with the origin of each value.

    `tiers` holds every GPU at every precision it has a peak for. `provenance` lists the values of these models, GPUs
    and precisions, block by block.
    """

    models: Mapping[str, LlmModel]
    tiers: Mapping[str, Tier]
    gpus: Mapping[str, Gpu]
    precisions: Mapping[str, Precision]
    provenance: tuple[StatedValue, ...]
    engines: Mapping[str, ServingEngine] = field(default_factory=dict)

    def select(
        self,
        *,
        models: Iterable[str] | None = None,
        tiers: Iterable[str] | None = None,
        price_overrides: Mapping[str, float] | None = None,
    ) -> "Catalog":
        """Return the catalog of some models and tiers, in the order given; None keeps all.

        Parameters
        ----------
        price_overrides
            Prices in USD per GPU-hour, by tier name (`h100-80-fp8`) or GPU name (`h100-80`, all its tiers). The tier's
            price prevails where both are given. The names may be any of this catalog, chosen or not.

        Raises
        ------
        InputError
            Naming all unknown names with close matches, and negative or non-finite prices.
        """
        prices = dict(price_overrides or {})
        model_names = list(self.models if models is None else dict.fromkeys(models))
        tier_names = list(self.tiers if tiers is None else dict.fromkeys(tiers))
        problems = [
            f"model {name!r} is unknown; {closest(name, self.models)}"
            for name in model_names
            if name not in self.models
        ]
        problems += [
            f"tier {name!r} is unknown; {closest(name, self.tiers)}" for name in tier_names if name not in self.tiers
        ]
        priced = [*self.tiers, *self.gpus]
        problems += [
            f"price of {name!r}: no such tier or GPU; {closest(name, priced)}" for name in prices if name not in priced
        ]
        problems += [
            f"price of {name!r} is {price}, expected at least 0 USD/GPU-h"
            for name, price in prices.items()
            if not 0 <= price < float("inf")
        ]
        problems += ["no model is chosen"] * (not model_names) + ["no tier is chosen"] * (not tier_names)
        if problems:
            raise InputError(problems)
        chosen = [self.tiers[name] for name in tier_names]
        gpus = {tier.gpu: self.gpus[tier.gpu] for tier in chosen}
        return Catalog(
            models={name: self.models[name] for name in model_names},
            tiers={
                tier.name: replace(
                    tier,
                    price_usd_per_gpu_h=prices.get(tier.name, prices.get(tier.gpu, tier.price_usd_per_gpu_h)),
                )
                for tier in chosen
            },
            gpus={
                name: replace(gpu, price_usd_per_gpu_h=prices.get(name, gpu.price_usd_per_gpu_h))
                for name, gpu in gpus.items()
            },
            precisions={tier.precision: self.precisions[tier.precision] for tier in chosen},
            provenance=self._provenance(set(model_names), chosen, prices),
            engines=self.engines,
        )

    def _provenance(self, models: set[str], tiers: list[Tier], prices: Mapping[str, float]) -> tuple[StatedValue, ...]:
        """The values that remain, with the prices that the user gave in place of the catalog's."""
        names = {
            "model": models,
            "gpu": {tier.gpu for tier in tiers},
            "precision": {tier.precision for tier in tiers},
            "tier": {tier.name for tier in tiers},
        }
        kept = {(v.section, v.block, v.field): v for v in self.provenance if v.block in names[v.section]}
        for name, price in prices.items():
            section = "tier" if name in self.tiers else "gpu"
            if name in names[section]:
                kept[section, name, "price"] = StatedValue(
                    section=section, block=name, field="price", value=price, unit="USD/GPU-h", source=_OVERRIDE
                )
        return tuple(kept.values())


@lru_cache(maxsize=1)
def _shipped() -> Blocks:
    """What the shipped files state; every changed scenario asks for it again."""
    blocks = Blocks()
    for name in SHIPPED:
        text = (resources.files("simulator.catalog") / name).read_text(encoding="utf-8")
        blocks = read_blocks(text, name, blocks)
    return blocks


def load_catalog(path: Path | None = None) -> Catalog:
    """Load the shipped catalog, extended by a user's file.

    Parameters
    ----------
    path
        A TOML file with `[gpu.*]`, `[precision.*]`, `[model.*]` and `[sources.*]` blocks. A block replaces the shipped
        one of the same name as a whole, so that no value silently keeps a source that is not its own. It may use the
        shipped sources and precisions.

    Raises
    ------
    InputError
        If the file cannot be read, with every problem of its content.
    """
    blocks = _shipped()
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected TOML in UTF-8") from None
        blocks = read_blocks(text, str(path), blocks)
    tiers = [Tier.of(gpu, blocks.precisions[name]) for gpu in blocks.gpus.values() for name in gpu.peak_tflops]
    return Catalog(
        models=blocks.models,
        tiers=with_calibrations(tiers, blocks.calibrations),
        gpus=blocks.gpus,
        precisions=blocks.precisions,
        provenance=tuple(value for values in blocks.stated.values() for value in values),
        engines=blocks.engines,
    )


def tier_size(tier: Tier) -> TierSize:
    """What the planner needs to know of a tier."""
    return TierSize(
        name=tier.name,
        memory_gb=tier.memory_gb,
        compute_tflops=tier.compute_tflops,
        compute_efficiency=tier.compute_efficiency,
        bandwidth_gb_s=tier.bandwidth_gb_s,
        price_usd_per_gpu_h=tier.price_usd_per_gpu_h,
        weight_factor=tier.weight_factor,
    )


def model_size(model: LlmModel) -> ModelSize:
    """What the planner needs to know of a model."""
    return ModelSize(
        name=model.name,
        parameters_b=model.parameters_b,
        weights_gb=model.weights_gb,
        kv_mb_per_token=model.kv_bytes_per_token / BYTES_PER_MB,
    )
