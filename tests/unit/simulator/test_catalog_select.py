"""Choosing models, tiers and prices from the catalog."""

import pytest

from simulator.catalog import SourceKind, load_catalog
from simulator.errors import InputError

CATALOG = load_catalog()


def test_selection_keeps_the_order_given_and_drops_the_rest():
    catalog = CATALOG.select(models=["llama-3.1-8b", "llama-3.2-1b"], tiers=["h100-80-fp8", "a6000-fp16"])
    assert list(catalog.models) == ["llama-3.1-8b", "llama-3.2-1b"]
    assert list(catalog.tiers) == ["h100-80-fp8", "a6000-fp16"]
    assert list(catalog.gpus) == ["h100-80", "a6000"]
    assert list(catalog.precisions) == ["fp8", "fp16"]
    blocks = {value.block for value in catalog.provenance}
    assert blocks == {"llama-3.1-8b", "llama-3.2-1b", "h100-80", "a6000", "fp8", "fp16"}


def test_nothing_given_keeps_everything():
    assert CATALOG.select() == CATALOG


def test_price_of_a_gpu_applies_to_its_tiers_and_that_of_a_tier_prevails():
    catalog = CATALOG.select(price_overrides={"h100-80-fp8": 1.5, "h100-80": 2.0})
    assert catalog.tiers["h100-80-fp8"].price_usd_per_gpu_h == 1.5
    assert catalog.tiers["h100-80-fp16"].price_usd_per_gpu_h == 2.0
    assert catalog.gpus["h100-80"].price_usd_per_gpu_h == 2.0
    assert catalog.tiers["h200-141-fp8"] == CATALOG.tiers["h200-141-fp8"]
    prices = {(v.section, v.block): v for v in catalog.provenance if v.field == "price"}
    assert prices["gpu", "h100-80"].value == 2.0
    assert prices["tier", "h100-80-fp8"].value == 1.5
    assert prices["gpu", "h100-80"].source.kind is SourceKind.ASSUMED
    assert prices["gpu", "h100-80"].source.name == "override"
    assert prices["gpu", "a6000"].source.name == "base-price"


def test_a_selection_can_be_selected_from_again():
    catalog = CATALOG.select(price_overrides={"h100-80-fp8": 1.5}).select(tiers=["h100-80-fp8"])
    assert catalog.tiers["h100-80-fp8"].price_usd_per_gpu_h == 1.5
    assert any(v.section == "tier" and v.value == 1.5 for v in catalog.provenance)
    other = CATALOG.select(price_overrides={"h100-80-fp8": 1.5}).select(tiers=["h100-80-fp16"])
    assert not any(v.section == "tier" for v in other.provenance)


def test_price_of_a_tier_that_is_not_chosen_changes_nothing():
    tiers = ["a6000-fp16"]
    assert CATALOG.select(tiers=tiers, price_overrides={"h100-80": 1.0}) == CATALOG.select(tiers=tiers)


def test_unknown_names_are_reported_together_with_close_matches():
    with pytest.raises(InputError) as caught:
        CATALOG.select(models=["Llama-3.1-8B", "gpt-9"], tiers=["h100-fp8"], price_overrides={"h100": 1, "l4": -1})
    model, far, tier, price, negative = caught.value.problems
    assert "model 'Llama-3.1-8B' is unknown; did you mean 'llama-3.1-8b'" in model
    assert "model 'gpt-9' is unknown; expected one of llama-3.2-1b, llama-3.2-3b" in far
    assert "tier 'h100-fp8' is unknown; did you mean" in tier
    assert "'h100-80-fp8'" in tier
    assert "price of 'h100'" in price
    assert "'h100-80'" in price
    assert "price of 'l4' is -1, expected at least 0" in negative


def test_an_empty_selection_is_refused():
    with pytest.raises(InputError) as caught:
        CATALOG.select(models=[], tiers=[])
    assert caught.value.problems == ("no model is chosen", "no tier is chosen")
