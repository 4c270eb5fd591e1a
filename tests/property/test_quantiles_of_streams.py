"""Quantiles of a stream: exact while it is short, within their stated error when it is long, whatever the batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import experiments.measures.quantiles
from experiments.measures.quantiles import Quantiles

VALUES = st.lists(st.floats(0, 1e12, allow_subnormal=False) | st.just(float("nan")), max_size=60)
LEVELS = np.array([0.0, 0.1, 0.5, 0.95, 0.99, 1.0])


def quantiles_of(values, batch):
    found = Quantiles()
    for start in range(0, len(values), batch):
        found.add(np.array(values[start : start + batch], dtype=np.float64))
    return found


@given(VALUES, st.integers(1, 20))
def test_short_streams_are_exact(values, batch):
    found = quantiles_of(values, batch)
    defined = np.array([value for value in values if value == value])
    assert found.exact
    assert found.count == len(defined)
    if len(defined):
        assert found.at(LEVELS).tolist() == np.quantile(defined, LEVELS).tolist()
    else:
        assert found.named() == {"p50": None, "p95": None, "p99": None}


@given(VALUES, st.integers(1, 20), st.integers(0, 20))
def test_long_streams_are_within_their_error(values, batch, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments.measures.quantiles, "EXACT_VALUES", kept)
        found = quantiles_of(values, batch)
    defined = np.array([value for value in values if value == value])
    assert found.count == len(defined)
    assert found.exact == (len(defined) <= kept)
    if len(defined):
        truth = np.quantile(defined, LEVELS)
        assert (np.abs(found.at(LEVELS) - truth) <= truth * 2**-11 * 1.0001 + 1e-300).all()


def test_the_curve_is_the_distribution_function():
    found = quantiles_of([3.0, 1.0, 2.0, 4.0], 2)
    values, shares = found.curve()
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert shares.tolist() == [0.25, 0.5, 0.75, 1.0]
    values, shares = found.curve(points=2)
    assert values.tolist() == [2.0, 4.0]
    assert shares.tolist() == [0.5, 1.0]
    assert [len(part) for part in Quantiles().curve()] == [0, 0]
