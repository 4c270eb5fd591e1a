"""A plan that is written and read again is the same plan, to the last bit of every number."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.catalog.configuration import Configuration
from simulator.planning.files import read_plan, write_plan
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route

NAMES = st.text(max_size=8)
MONEY = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
DEGREES = st.integers(1, 10**6)  # the most that a file may say

CONFIGURATIONS = st.builds(
    Configuration,
    model=NAMES,
    tier=NAMES,
    tensor_parallel=DEGREES,
    pipeline_parallel=DEGREES,
    tpot_target_s=st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
)
PLANS = st.builds(
    Plan,
    problem=NAMES,
    policy=NAMES,
    status=st.sampled_from(PlanStatus),
    cost_usd=MONEY,
    bound_usd=st.none() | MONEY,
    seconds=st.none() | st.floats(0, allow_infinity=False),
    deployments=st.lists(st.builds(Deployment, configuration=CONFIGURATIONS, replicas=DEGREES), max_size=4).map(tuple),
    routing=st.lists(st.builds(Route, query_type=NAMES, model=NAMES, tier=NAMES, share=SHARES), max_size=4).map(tuple),
    unmet=st.lists(st.tuples(NAMES, SHARES), max_size=4).map(tuple),
)


@settings(max_examples=80, deadline=None)
@given(plan=PLANS)
def test_plan_round_trip(plan):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        write_plan(path, plan)
        first = path.read_bytes()
        again = read_plan(path)
        assert again == plan
        write_plan(path, again)
        assert path.read_bytes() == first
