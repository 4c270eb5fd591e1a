"""import-linter holds the direction of imports (`pyproject.toml`); the design page has to say the same."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = [contract for contract in CONTRACTS if contract["type"] == "layers"]


@pytest.mark.parametrize("contract", LAYERS, ids=lambda contract: contract["name"])
def test_the_design_page_states_the_direction(contract):
    assert contract["name"] in (ROOT / "docs" / "design.md").read_text()


@pytest.mark.parametrize("package", ["simulator", "policies", "traces", "experiments"])
def test_every_package_has_its_layers(package):
    assert any(contract.get("containers") == [package] and contract["exhaustive"] for contract in LAYERS)
