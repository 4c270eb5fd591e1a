"""Which engine runs: by name, by what the user's functions are, and by what the machine can do."""

import subprocess
import sys

import pytest
from numba import njit

from simulator.engine import ENGINES, Engine, ReferenceEngine, choose_engine
from simulator.errors import InputError


@njit
def compiled_function(x):
    return x


def plain_function(x):
    return x


def another_function(x):
    return x


def test_compiled_engine_is_the_default():
    chosen = choose_engine()
    assert (chosen.name, chosen.engine.__name__, chosen.warning) == ("compiled", "CompiledEngine", None)
    assert choose_engine("compiled").engine is chosen.engine


def test_reference_engine_by_name():
    chosen = choose_engine("reference")
    assert (chosen.name, chosen.engine, chosen.warning, chosen.notice) == ("reference", ReferenceEngine, None, None)


@pytest.mark.parametrize("name", ENGINES)
def test_every_name_has_an_engine(name):
    assert issubclass(choose_engine(name).engine, Engine)


@pytest.mark.parametrize(("name", "hint"), [("refrence", "reference"), ("Compiled", "compiled"), ("x", "compiled")])
def test_unknown_engine_is_refused_with_a_hint(name, hint):
    with pytest.raises(InputError, match=f"{name}.*{hint}"):
        choose_engine(name)


def test_compiled_functions_run_in_the_compiled_engine():
    chosen = choose_engine(functions=[compiled_function])
    assert (chosen.name, chosen.warning) == ("compiled", None)


def test_plain_functions_need_the_reference_engine_and_are_named():
    chosen = choose_engine(functions=[compiled_function, plain_function, another_function])
    assert (chosen.name, chosen.engine) == ("reference", ReferenceEngine)
    assert "plain_function, another_function" in chosen.warning
    assert "compiled_function" not in chosen.warning
    assert "njit" in chosen.warning
    assert "\n" not in chosen.warning


def test_no_warning_where_the_reference_engine_was_asked_for():
    assert choose_engine("reference", [plain_function]).warning is None


def in_a_fresh_process(before, after):
    """Choose an engine in a process of its own, and say what was chosen."""
    code = f"""
import sys
{before}
from simulator.engine import choose_engine
{after}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


WHAT_WAS_CHOSEN = """
chosen = choose_engine()
print(chosen.name)
print(chosen.warning)
"""


def test_without_numba_the_reference_engine_runs_with_one_warning():
    name, warning = in_a_fresh_process("sys.modules['numba'] = None", WHAT_WAS_CHOSEN)
    assert name == "reference"
    assert "compiled engine cannot be had" in warning
    assert "numba" in warning


def test_where_numba_cannot_cache_the_reference_engine_runs_with_one_warning():
    """As if it found no folder that it may write to."""
    before = "from numba.core.caching import CacheImpl\nCacheImpl._locator_classes = []"
    name, warning = in_a_fresh_process(before, WHAT_WAS_CHOSEN)
    assert name == "reference"
    assert "compiled engine cannot be had" in warning
    assert "cache" in warning


def test_numba_is_not_loaded_before_it_is_needed():
    lines = in_a_fresh_process(
        "import experiments.cli.app",
        "choose_engine('reference')\nprint('numba' in sys.modules)\nchoose_engine()\nprint('numba' in sys.modules)",
    )
    assert lines == ["False", "True"]
