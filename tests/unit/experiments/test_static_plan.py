"""One plan, kept, on arrivals that it was not planned for, in worse and worse worlds; and the study that asks."""

import json

import pandas as pd
import pytest

from experiments.studies.shared.cheapest import cheapest
from experiments.studies.tasks import perform
from experiments.sweep.schema import results_table

FACTORS = [1.0, 1.2, 1.5]
ASKED = {"scenario": "azure-2023", "policy": "agh", "seed": 0, "factors": FACTORS, "duration_s": 900.0}
SLOS = 12  # TTFT, TPOT and E2E of four types


def test_a_worse_world_violates_no_less_and_has_the_same_arrivals():
    rows = perform("static_plan", ASKED).rows
    assert [row["factor"] for row in rows] == FACTORS
    assert len({(row["arrived"], row["gpus"], row["replicas"]) for row in rows}) == 1
    rents = [row["rent_usd"] for row in rows]  # of what still serves when the horizon ends, too
    assert max(rents) < 1.02 * min(rents)
    shares = [row["violation_share"] for row in rows]
    assert shares == sorted(shares)
    broken = [row["slos_broken"] for row in rows]
    assert broken == sorted(broken)
    assert all(0 <= count <= SLOS for count in broken)
    for row in rows:
        assert row["arrived"] == row["served"] + row["rejected"] + row["failed"] + row["in_flight"]
        assert row["violation_share"] >= row["unmet_share"]
        assert "intervals" not in row


def test_every_plan_of_a_seed_is_judged_on_the_same_arrivals():
    rows = [perform("static_plan", {**ASKED, "policy": policy, "factors": [1.0]}).rows[0] for policy in ("gh", "agh")]
    other = perform("static_plan", {**ASKED, "seed": 1, "factors": [1.0]}).rows[0]
    assert rows[0]["arrived"] == rows[1]["arrived"] != other["arrived"]


def test_more_headroom_rents_more_and_violates_less():
    tight, ample = (
        perform("static_plan", {**ASKED, "factors": [1.0], "changes": {"limits.cap": cap}}).rows[0]
        for cap in (1.0, 0.3)
    )
    assert ample["rent_usd"] > tight["rent_usd"]
    assert ample["violation_share"] < tight["violation_share"]


def verified(factor):
    asked = {"draws": 2, "effort": 1, "factor": factor}
    (row,) = perform("static_plan", {**ASKED, "policy": "agh+", "factors": [1.0], "verify": asked}).rows
    return row


def test_a_verified_plan_says_how_it_was_accepted():
    row = verified(1.0)
    assert row["policy"] == "verified[agh+]"
    assert row["status"].startswith("held on ")
    assert verified(1.0) == row
    (tight,) = perform(
        "static_plan", {**ASKED, "policy": "agh+", "factors": [1.0], "changes": {"limits.cap": 1.0}}
    ).rows
    assert row["slos_broken"] < tight["slos_broken"]


def test_a_plan_verified_in_a_slower_world_is_another_and_judged_in_this_one():
    slow = verified(1.3)
    assert slow["policy"] == "verified[agh+ at 1.3]"
    assert slow["rent_usd"] >= verified(1.0)["rent_usd"]
    assert slow["slos_broken"] == 0


def test_no_plan_is_told_for_every_factor():
    changes = {"limits.budget_usd_per_h": 1.0, "query_types": _no_unmet()}
    rows = perform("static_plan", {**ASKED, "changes": changes}).rows
    assert [(row["factor"], row["feasible"]) for row in rows] == [(factor, False) for factor in FACTORS]
    assert all(row["status"].startswith("no plan: ") for row in rows)


def _no_unmet():
    from experiments.scenario.scenario import load_scenario

    return [{**rule.model_dump(), "unmet_cap": 0.0} for rule in load_scenario("azure-2023").types]


class TestWords:
    def told(self, rows):
        rows = [{"seed": 0, "feasible": True, "setting": None, **row} for row in rows]
        return cheapest(results_table(rows).to_pandas(), "Here", "violated", by_setting=False)

    def test_neighbours_with_the_same_answer_are_one(self):
        costs = {"a": 1.0, "b": 2.0}
        shares = {
            ("a", 1.0): 0.0,
            ("a", 1.1): 0.005,
            ("a", 1.2): 0.2,
            ("b", 1.0): 0.0,
            ("b", 1.1): 0.0,
            ("b", 1.2): 0.03,
        }
        rows = [
            {"policy": policy, "factor": factor, "cost_usd": costs[policy] * factor, "violation_share": share}
            for (policy, factor), share in shares.items()
        ]
        assert self.told(rows) == [
            "Here, cheapest with at most 1 % violated: a at 1 to 1.1 (1.00 to 1.10 USD); "
            "none at 1.2 (the least is 3.0 %, b).",
            "Here, cheapest with at most 5 % violated: a at 1 to 1.1 (1.00 to 1.10 USD); b at 1.2 (2.40 USD).",
        ]

    def test_plans_that_are_the_same_are_named_together(self):
        rows = [
            {"policy": policy, "factor": 1.0, "cost_usd": 3.0, "violation_share": 0.0} for policy in ("agh", "exact")
        ]
        assert self.told(rows)[0] == "Here, cheapest with at most 1 % violated: agh = exact at 1 (3.00 USD)."

    def test_who_has_no_plan_for_a_seed_does_not_win(self):
        rows = [
            {"policy": "a", "factor": 1.0, "cost_usd": 1.0, "violation_share": 0.0},
            {"policy": "a", "seed": 1, "factor": 1.0, "feasible": False},
            {"policy": "b", "factor": 1.0, "cost_usd": 2.0, "violation_share": 0.0},
        ]
        assert "b at 1" in self.told(rows)[0]
        assert self.told(rows[:2]) == []


class TestCommand:
    COMMAND = ("study", "frontier", "--policy", "gh", "--caps", "0.5", "--factors", "1,1.5", "--duration", "15m",
               "--effort", 1, "--draws", 2, "--seeds", 1)  # fmt: skip

    def test_all_parts_and_the_same_on_two_workers(self, run_cli, tmp_path):
        first = run_cli(*self.COMMAND, "--json", "--jobs", 1)
        assert first.code == 0, first.stderr
        assert run_cli(*self.COMMAND, "--json", "--jobs", 2, "--out", tmp_path / "s").stdout == first.stdout
        frame = pd.DataFrame(json.loads(first.stdout)["rows"])
        assert set(frame["way"]) == {"rerouted", "fixed", "simulated"}
        assert set(frame["policy"]) == {"gh", "verified[agh+]", "verified[agh+ at 1.3]"}
        shown = run_cli(*self.COMMAND, "--jobs", 1)
        for part in ("Analytic", "Static, simulated", "Re-planned, simulated"):
            assert f"{part}, cheapest with at most 1 %" in shown.stdout.replace("\n", " ")

    @pytest.mark.parametrize("part", ["analytic", "static", "replanned"])
    def test_one_part(self, part, run_cli):
        done = run_cli(*self.COMMAND, "--parts", part, "--no-verified", "--json", "--jobs", 1)
        rows = json.loads(done.stdout)["rows"]
        assert {row["policy"] for row in rows} == {"gh"}
        assert {row.get("problem", "").split("@")[0] for row in rows} == {
            "paper-base" if part == "analytic" else "azure-2023"
        }

    def test_a_part_that_is_none(self, run_cli):
        done = run_cli(*self.COMMAND, "--parts", "dynamic")
        assert (done.code, "is none of analytic, static, replanned" in done.stderr) == (2, True)
