"""Catalog files read into values, one on top of the other."""

import tomllib
from dataclasses import dataclass, field, replace
from typing import Any

from simulator.catalog.calibration import Calibration, ServingEngine
from simulator.catalog.schema import SECTIONS, CatalogFile
from simulator.catalog.source import Source, SourceKind
from simulator.catalog.values import Gpu, LlmModel, Precision, StatedValue
from simulator.errors import InputError
from simulator.validation import validated


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of several catalog files; a later file's block replaces an earlier one of its name as a whole."""

    sources: dict[str, Source] = field(default_factory=dict)
    precisions: dict[str, Precision] = field(default_factory=dict)
    gpus: dict[str, Gpu] = field(default_factory=dict)
    models: dict[str, LlmModel] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    engines: dict[str, ServingEngine] = field(default_factory=dict)
    stated: dict[tuple[str, str], tuple[StatedValue, ...]] = field(default_factory=dict)  # of each (section, block)


def read_blocks(text: str, where: str, before: Blocks) -> Blocks:
    """Read one catalog file on top of those read before, whose sources and precisions it may use.

    Raises
    ------
    InputError
        Naming `where`, the path of each field that cannot be used, what was expected and what was found.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: expected TOML: {error}") from None
    # Names are collected before validation, so that an unknown one is reported together with all other problems.
    context = {
        "sources": [*before.sources, *_source_names(raw)],
        "precisions": [*before.precisions, *_table(raw.get("precision"))],
    }
    file = validated(CatalogFile, raw, where, context=context)
    sources = before.sources | {
        name: Source(name=name, kind=source.kind, citation=source.citation)
        for table in file.tables_of_sources()
        for name, source in table.items()
    }
    stated = before.stated | {
        (section, name): block.stated(section, name, sources)
        for section in SECTIONS
        for name, block in getattr(file, section).items()
    }
    models = {name: block.to_value(name) for name, block in file.model.items()}
    for name, model in models.items():
        stated["model", name] += _derived(model)
    return replace(
        before,
        sources=sources,
        precisions=before.precisions | {name: block.to_value(name) for name, block in file.precision.items()},
        gpus=before.gpus | {name: block.to_value(name) for name, block in file.gpu.items()},
        models=before.models | models,
        calibrations=before.calibrations
        | {name: block.to_value(name, sources) for name, block in file.calibration.items()},
        engines=before.engines | {name: block.to_value(name, sources) for name, block in file.engine.items()},
        stated=stated,
    )


def _derived(model: LlmModel) -> tuple[StatedValue, ...]:
    """Values that `ModelBlock.to_value` derives, with their formulas as sources."""
    rows = (
        ("weights", model.weights_gb, "GB", "2 bytes per parameter (FP16)"),
        (
            "kv_per_token",
            model.kv_bytes_per_token,
            "B/token",
            "2 (key and value) x kv_layers (layers if not stated) x kv_heads x head_dim x 2 bytes (FP16)",
        ),
    )
    return tuple(
        StatedValue(
            section="model",
            block=model.name,
            field=name,
            value=value,
            unit=unit,
            source=Source(name="derived", kind=SourceKind.DERIVED, citation=formula),
        )
        for name, value, unit, formula in rows
    )


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _source_names(raw: dict[str, Any]) -> list[str]:
    """Names of all sources of a file that is not validated yet."""
    blocks = [raw, *(block for section in SECTIONS for block in _table(raw.get(section)).values())]
    return [name for block in blocks for name in _table(_table(block).get("sources"))]
