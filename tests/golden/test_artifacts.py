"""Everything that the commands leave behind on small cases is as recorded in `artifacts.json`.

A digest that changes has to be meant: say so in CHANGELOG, and record it by `python -m tests.golden.artifacts`.
"""

import pytest

from tests.golden.artifacts import SMALL_STUDIES, differences, run_commands


def test_commands(tmp_path):
    assert differences(run_commands(tmp_path), study="") == []


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SMALL_STUDIES])
def test_study(name, small_study):
    assert differences(small_study(name).digests, study=name) == []
