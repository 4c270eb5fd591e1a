"""The house keeps its direction: experiments -> policies | traces -> simulator."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "simulator": {"simulator"},
    "policies": {"policies", "simulator"},
    "traces": {"traces", "simulator"},
    "experiments": {"experiments", "policies", "traces", "simulator"},
}
KEPT_TO = {
    "simpy": {"simulator/engine/base.py", "simulator/engine/reference.py", "simulator/engine/compiled.py"},
    "numba": {
        "policies/heuristics/coverage.py",
        "policies/exact/knapsack.py",
        "policies/heuristics/fleet_bound.py",
        "policies/heuristics/machine_code.py",
        "simulator/engine/compiled.py",
        "simulator/replica/extension.py",
        "simulator/replica/kernel.py",
    },
    "llvmlite": {"simulator/replica/kernel.py"},
    "pyomo": {"policies/milp/model.py", "policies/milp/policy.py", "policies/milp/robust.py"},
    "highspy": {
        "policies/heuristics/baselines.py",
        "policies/checking/conflict.py",
        "policies/exact/master.py",
        "policies/highs.py",
        "policies/heuristics/routing.py",
    },
}
FILES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports, wherever in the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(path.read_text()) & set(ALLOWED) <= ALLOWED[package]


@pytest.mark.parametrize("library", KEPT_TO)
def test_libraries_stay_in_their_modules(library: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in FILES if library in imported(path.read_text())}
    assert users == KEPT_TO[library]


def test_the_reader_of_imports_sees_nested_ones() -> None:
    assert imported("def f():\n    from policies.registry import x\n    import simpy.core") == {"policies", "simpy"}


def test_the_design_page_states_the_direction() -> None:
    assert "experiments -> policies | traces -> simulator" in (ROOT / "docs" / "design.md").read_text()
