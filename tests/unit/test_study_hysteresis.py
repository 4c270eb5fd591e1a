"""`tokenfleet study hysteresis`: churn and money by hand, what a weight means, and the command."""

import json
import math
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from experiments.figures import STYLE
from experiments.studies import STUDIES
from experiments.studies.hysteresis import WALK_LIMIT, demand_walk, follow, interval_problems, means, sweep
from experiments.studies.hysteresis_figure import frontier
from policies.random_problem import random_problem, with_demand
from policies.registry import make_policy
from simulator.capacity import paper_problem
from simulator.errors import InfeasibleError
from simulator.plan import PlanArrays, PlanStatus, build_plan
from simulator.policy import StoppingRule
from simulator.problem import Configuration, ModelSize, MovingTerms, QueryType, TierSize

STOP = StoppingRule(effort=30, starts=3)
PARTS = ("rent_usd", "storage_usd", "delay_penalty_usd", "unmet_penalty_usd", "moving_usd")
INTERVAL_H = 1 / 12


def one_configuration(**changes):
    """One type, one configuration of 2 GPUs at 7.2 USD/h; its demand fills 0.8 of a replica."""
    parts = {
        "name": "tiny",
        "period_h": 1.0,
        "budget_usd": 1000.0,
        "storage_price_usd_per_gb_h": 0.01,
        "storage_capacity_gb": 100.0,
        "max_replicas": 9,
        "query_types": [
            QueryType(
                name="q",
                arrival_per_h=3600.0,
                input_tokens=60.0,
                output_tokens=40.0,
                delay_slo_s=30.0,
                error_slo=0.1,
                delay_penalty_usd_per_query_s=1e-4,
                unmet_penalty_usd_per_query=0.01,
                unmet_cap=0.0,
            )
        ],
        "models": [ModelSize(name="m", parameters_b=10.0, weights_gb=20.0, kv_mb_per_token=1e-6)],
        "tiers": [
            TierSize(
                name="t",
                memory_gb=24.0,
                compute_tflops=2.5,  # 100 tokens/s of 0.02 TFLOP each need 2 of 2 x 2.5 x 0.5
                compute_efficiency=0.5,
                bandwidth_gb_s=1000.0,
                price_usd_per_gpu_h=3.6,
                weight_factor=1.0,
            )
        ],
        "configurations": [Configuration(model="m", tier="t", tensor_parallel=2, pipeline_parallel=1)],
        "delay_s": np.array([[2.0]]),
        "error": np.array([[0.01]]),
    }
    terms = MovingTerms(provisioning_s=60.0, load_gb_per_s=2.0, drain_s=30.0)
    return replace(paper_problem(**(parts | changes)), moving=terms)


def intervals(problem, *factors):
    return interval_problems(problem, np.array(factors, dtype=float)[:, None], interval_h=INTERVAL_H)


class Enough:
    """Rents just enough replicas of the only configuration, and notes the weights that it is shown."""

    name = "enough"

    def __init__(self):
        self.seen = []

    def plan(self, problem, *, incumbent, stop, seed):
        self.seen.append(problem.moving.weight)
        replicas = np.array([math.ceil(float(problem.load[0, 0]) - 1e-9)])
        arrays = PlanArrays(replicas, np.ones((1, 1)), np.zeros(1))
        return build_plan(problem, arrays, policy=self.name, status=PlanStatus.FEASIBLE, seconds=0.0)


class OnlyOnce(Enough):
    """Finds no plan but the first."""

    def plan(self, problem, *, incumbent, stop, seed):
        if incumbent is not None:
            raise InfeasibleError("no plan")
        return super().plan(problem, incumbent=incumbent, stop=stop, seed=seed)


class Unpriced:
    """A policy that is told nothing of moving."""

    def __init__(self, inner):
        self.inner, self.name = inner, inner.name

    def plan(self, problem, *, incumbent, stop, seed):
        return self.inner.plan(replace(problem, moving=None), incumbent=incumbent, stop=stop, seed=seed)


def followed(policy, problems, weight=1.0):
    return follow(policy, problems, weight=weight, stop=STOP, seed=0)


# -- by hand


@pytest.mark.parametrize("weight", [0.0, 1.0, 8.0])
def test_churn_and_money_by_hand(weight):
    """1, 3, then 2 replicas: two starts of 70 s and a stop of 100 s at 0.002 USD/s, whatever the weight."""
    policy = Enough()
    outcome = followed(policy, intervals(one_configuration(), 1.0, 3.0, 2.0), weight)
    assert policy.seen == [weight] * 3
    assert outcome.moving_usd == pytest.approx(2 * 0.14 + 0.20)
    assert outcome.rent_usd == pytest.approx((1 + 3 + 2) * 7.2 / 12)
    assert outcome.storage_usd == pytest.approx(3 * 20 * 0.01 / 12)
    assert outcome.delay_penalty_usd == pytest.approx((1 + 3 + 2) * 300 * 2.0 * 1e-4)
    assert outcome.unmet_penalty_usd == 0
    assert outcome.total_usd == sum(getattr(outcome, part) for part in PARTS)
    assert outcome.replicas_started_per_h == pytest.approx(2 / 0.25)
    assert outcome.replicas_stopped_per_h == pytest.approx(1 / 0.25)
    assert outcome.churn_per_h == pytest.approx(3 / 0.25)
    assert outcome.gpus_started_per_h == pytest.approx(4 / 0.25)
    assert outcome.intervals_changed == 2
    assert (outcome.intervals_infeasible, outcome.intervals_unserved, outcome.unmet_share) == (0, 0, 0.0)


def test_never_moving_keeps_the_first_fleet_and_routes_it_anew():
    """Unmet demand is capped at nothing: three times the load of one replica cannot be served at all."""
    outcome = followed(Enough(), intervals(one_configuration(), 1.0, 0.5, 3.0), None)
    assert outcome.weight is None
    assert (outcome.churn_per_h, outcome.moving_usd, outcome.intervals_changed) == (0.0, 0.0, 0)
    assert outcome.rent_usd == pytest.approx(3 * 7.2 / 12)
    assert (outcome.intervals_infeasible, outcome.intervals_unserved) == (0, 1)
    assert outcome.unmet_share == pytest.approx(3 / 4.5)
    assert outcome.unmet_penalty_usd == pytest.approx(3 * 300 * 0.01)
    assert outcome.delay_penalty_usd == pytest.approx(1.5 * 300 * 2.0 * 1e-4)


def test_an_interval_without_a_plan_keeps_the_fleet_and_is_counted():
    outcome = followed(OnlyOnce(), intervals(one_configuration(), 1.0, 0.5, 3.0))
    assert (outcome.intervals_infeasible, outcome.intervals_unserved) == (2, 1)
    assert outcome == replace(
        followed(Enough(), intervals(one_configuration(), 1.0, 0.5, 3.0), None),
        weight=1.0,
        intervals_infeasible=2,
        planning_s=outcome.planning_s,
    )


def test_demand_that_may_stay_unmet_is_routed_as_far_as_it_goes():
    problem = one_configuration()
    problem = replace(problem, query_types=tuple(replace(q, unmet_cap=1.0) for q in problem.query_types))
    outcome = followed(OnlyOnce(), intervals(problem, 1.0, 2.0))
    assert (outcome.intervals_infeasible, outcome.intervals_unserved) == (1, 0)
    assert outcome.unmet_share == pytest.approx((2 - 1 / 0.8) / 3)


def test_without_a_first_plan_there_is_nothing_to_study():
    with pytest.raises(InfeasibleError, match="unmet caps"):
        followed(make_policy("gh"), intervals(one_configuration(max_replicas=1), 3.0, 1.0))


# -- weights and walks


@pytest.fixture(scope="module")
def problem():
    """Demand that fills several replicas of a deployment: there is something to move."""
    terms = MovingTerms(provisioning_s=60.0, load_gb_per_s=1.0, drain_s=4.0)
    drawn = random_problem(types=3, models=3, tiers=3, seed=4, max_replicas=30, budget_usd=20000.0)
    return replace(with_demand(drawn, np.full(3, 10.0)), moving=terms)


@pytest.fixture(scope="module")
def drifting(problem):
    return interval_problems(problem, demand_walk(3, 6, sigma=0.3, seed=1), interval_h=INTERVAL_H)


@pytest.mark.parametrize("name", ["gh", "agh", "agh+"])
def test_weight_zero_is_to_know_nothing_of_moving(name, drifting):
    ignoring = followed(make_policy(name), drifting, 0.0)
    unpriced = followed(Unpriced(make_policy(name)), drifting, 1.0)
    assert ignoring == replace(unpriced, weight=0.0, planning_s=ignoring.planning_s)
    assert ignoring.churn_per_h > 0


@pytest.mark.parametrize("name", ["gh", "agh", "agh+"])
@pytest.mark.parametrize("weight", [0.0, 1.0, 8.0])
def test_steady_demand_moves_nothing(name, weight, problem):
    steady = interval_problems(problem, demand_walk(3, 3, sigma=0.0, seed=1), interval_h=INTERVAL_H)
    outcome = followed(make_policy(name), steady, weight)
    assert (outcome.churn_per_h, outcome.moving_usd, outcome.intervals_changed) == (0.0, 0.0, 0)


@pytest.mark.parametrize("name", ["gh", "agh", "agh+"])
def test_who_heeds_what_moving_costs_moves_less(name, drifting):
    at = {weight: followed(make_policy(name), drifting, weight) for weight in (0.0, 1.0, 1000.0)}
    assert at[1.0].moving_usd < at[0.0].moving_usd
    if name != "gh":  # which builds anew from the fleet in force, and may leave it at any price
        assert at[1000.0].churn_per_h == 0


def test_walks_are_clipped_fair_and_of_their_own_seed():
    walk = demand_walk(3, 4000, sigma=0.2, seed=0)
    assert (walk[0] == 1).all()
    assert walk.min() == 1 / WALK_LIMIT
    assert walk.max() == WALK_LIMIT
    assert not np.array_equal(walk, demand_walk(3, 4000, sigma=0.2, seed=1))
    assert np.array_equal(walk, demand_walk(3, 4000, sigma=0.2, seed=0))
    one_step = np.array([demand_walk(50, 2, sigma=0.04, seed=seed)[1] for seed in range(40)])
    assert one_step.mean() == pytest.approx(1.0, abs=4 * 0.04 / math.sqrt(one_step.size))
    assert np.log(one_step).std() == pytest.approx(0.04, rel=0.1)


def test_an_interval_has_its_part_of_the_budget_and_its_own_demand(problem):
    walk = demand_walk(3, 3, sigma=0.3, seed=1)
    made = interval_problems(problem, walk, interval_h=INTERVAL_H)
    assert len({p.name for p in made}) == 3
    for p, factor in zip(made, walk, strict=True):
        assert p.period_h == INTERVAL_H
        assert p.budget_usd / p.period_h == pytest.approx(problem.budget_usd / problem.period_h)
        assert p.arrival_per_h == pytest.approx(problem.arrival_per_h * factor)
        assert p.load == pytest.approx(problem.load * factor[:, None])


def test_means_are_of_all_seeds_in_order(problem):
    outcomes = sweep(
        problem, [make_policy("gh")], [0, 2], intervals=3, interval_h=INTERVAL_H, sigma=0.3, seeds=range(2), stop=STOP
    )
    assert [(o.weight, o.seed) for o in outcomes] == [(w, s) for w in (0, 2, None) for s in (0, 1)]
    averaged = means(outcomes)
    assert [mean["weight"] for mean in averaged] == [0, 2, None]
    for mean in averaged:
        own = [o.total_usd for o in outcomes if o.weight == mean["weight"]]
        assert mean["total_usd"] == pytest.approx(sum(own) / 2)
        assert mean["total_usd"] == pytest.approx(sum(mean[part] for part in PARTS))


# -- the command

SHORT = ("study", "hysteresis", "--policy", "gh", "--duration", "30m", "--sigma", "0.2")


def test_json_is_one_object_without_machine_time(run_cli):
    done = run_cli(*SHORT, "--policy", "static[gh]", "--seeds", "2", "--weights", "1,0,1", "--json")
    assert (done.code, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["options"]["weights"] == [0, 1]
    assert len(result["runs"]) == 2 * 3 * 2
    assert "planning_s" not in done.stdout
    for run in result["runs"]:
        assert run["total_usd"] == pytest.approx(sum(run[part] for part in PARTS))
    fixed = [run for run in result["runs"] if run["policy"] == "static[gh]" or run["weight"] is None]
    assert {run["churn_per_h"] for run in fixed} == {0.0}
    assert len({run["total_usd"] for run in fixed}) == 2  # one for each seed: to never move is the static policy


def test_two_runs_leave_the_same_bytes(run_cli, tmp_path):
    folders = [tmp_path / "a" / "one", tmp_path / "two"]
    for folder in folders:
        done = run_cli(*SHORT, "--seeds", "1", "--weights", "0,1", "--out", folder)
        assert done.code == 0, done.stderr
        assert "nan" not in done.stdout
    names = {path.name for path in folders[0].iterdir()}
    assert names == {"run.json", "hysteresis.parquet", "hysteresis.png", "hysteresis.svg", "timing.json"}
    for name in names - {"timing.json"}:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    frame = pd.read_parquet(folders[0] / "hysteresis.parquet")
    assert list(frame["weight"].fillna(-1)) == [0.0, 1.0, -1.0]
    assert (frame["total_usd"] - frame[list(PARTS)].sum(axis=1)).abs().max() < 1e-9
    assert "planning_s" not in frame
    again = run_cli(*SHORT, "--seeds", "1", "--out", folders[0])
    assert again.code == 2
    assert "holds an earlier run" in re.sub(r"\s+", " ", again.stderr)


def test_options_come_before_what_the_scenario_says(run_cli):
    asked = ("--provisioning", "5", "--load", "7", "--drain", "0", "--effort", "9")
    done = run_cli(*SHORT, "--seeds", "1", "--weights", "1", *asked, "--json")
    options = json.loads(done.stdout)["options"]
    assert (options["provisioning_s"], options["load_gb_per_s"], options["drain_s"], options["effort"]) == (5, 7, 0, 9)


def test_a_problem_file_takes_the_place_of_the_scenario(run_cli, data_dir):
    file = data_dir / "problems" / "6x6x10-seed0.json.gz"
    done = run_cli(*SHORT, "--problem", file, "--seeds", "1", "--weights", "1", "--json")
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["options"]["provisioning_s"] == 60
    assert result["options"]["drain_s"] == 25  # its longest delay SLO


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--weights", "0,much"), "--weights: 'much' is no weight from zero on"),
        (("--weights", "-1"), "--weights: '-1' is no weight from zero on"),
        (("--weights", ""), "--weights: '' is no weight from zero on"),
        (("--weights", "nan"), "--weights: 'nan' is no weight"),
        (("--interval", "7m"), "--duration: 30m is no whole number of intervals of 7m"),
        (("--interval", "1h"), "--duration: 30m is no whole number of intervals of 1h"),
        (("--interval", "soon"), "--interval: 'soon' is no duration above zero"),
        (("--sigma", "inf"), "--sigma: inf is no number"),
        (("--sigma", "-1"), "--sigma"),
        (("--seeds", "0"), "--seeds"),
        (("--load", "0"), "--load: expected GB/s above zero"),
        (("--drain", "inf"), "--provisioning and --drain: expected seconds"),
        (("--policy", "none"), "unknown policy 'none'"),
        (("--scenario", "none"), "none"),
        (("--problem", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_bad_input(run_cli, tmp_path, arguments, says):
    done = run_cli(*SHORT, *arguments, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert says in re.sub(r"[\s│]+", " ", done.stderr)
    assert not list(tmp_path.iterdir())


def test_every_study_is_listed_and_has_an_example(run_cli):
    shown = re.sub(r"[\s│]+", " ", run_cli("study", "--help").stdout)
    for name, study in STUDIES.items():
        assert study.summary in shown
        assert f"Example: `tokenfleet study {name}" in study.command.__doc__


def test_the_figure_can_be_read():
    """Nothing is cut off, and points that lie on each other share their label."""
    averaged = [
        {"policy": policy, "weight": weight, "churn_per_h": churn, "total_usd": usd + shift}
        for shift, policy in ((0.0, "gh"), (3.0, "agh+"))
        for weight, churn, usd in ((0, 9.0, 62.0), (1, 5.0, 60.0), (4, 0.2, 63.0), (8, 0.2, 63.01), (None, 0.0, 65.0))
    ]
    with matplotlib.rc_context(STYLE):
        figure = frontier(averaged, "a walk")
        figure.draw_without_rendering()
        (axes,) = figure.axes
        texts = [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label, axes.get_legend(), figure._suptitle]
        for text in texts:
            box = text.get_window_extent()
            assert min(box.x0, box.y0) >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text
    assert sorted(text.get_text() for text in axes.texts) == sorted(["0", "1", "4, 8"] * 2)
