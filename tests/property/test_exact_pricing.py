"""The worth of a deployment: the fractional knapsack of both rows, against a linear program."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog

from policies.exact.options import Options
from policies.exact.pricing import best_use


def table(low, high, types, count):
    return arrays(np.float64, (types, count), elements=st.integers(low, high).map(lambda n: n / 10))


@st.composite
def uses(draw):
    """Options with their rows, and rewards of either sign."""
    types, count = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    share = draw(table(0, 10, types, count))
    whole = np.arange(count)
    nothing = np.zeros((types, count))
    options = Options(
        configuration=whole,
        replicas=whole,
        pair=whole,
        fixed_usd=np.zeros(count),
        move_usd=np.zeros(count),
        fixed_gb=np.zeros(count),
        gpus=whole,
        largest_share=share,
        load=draw(table(0, 30, types, count)),
        kv=draw(table(0, 30, types, count)),
        serve_usd=nothing,
        delay_s=nothing,
        error=nothing,
    )
    return options, draw(table(-20, 50, types, count))


@settings(max_examples=300, deadline=None)
@given(use=uses())
def test_worth_and_shares_are_those_of_the_linear_program(use):
    options, reward = use
    worth, shares = best_use(options, reward)
    assert (shares >= 0).all()
    assert (shares <= options.largest_share + 1e-12).all()
    for d in range(len(options)):
        rows = np.array([options.load[:, d], options.kv[:, d]])
        assert (rows @ shares[:, d] <= 1 + 1e-6).all()
        bounds = [(0, share) for share in options.largest_share[:, d]]
        best = -linprog(-reward[:, d], A_ub=rows, b_ub=[1, 1], bounds=bounds, method="highs").fun
        assert worth[d] >= best - 1e-9, "the worth must never be understated: the bound would be false"
        assert worth[d] <= best + 1e-6
        assert reward[:, d] @ shares[:, d] >= best - 1e-6
