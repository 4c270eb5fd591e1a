"""The cap that is needed: the search for it, and what is found holds while more does not."""

import pytest

from experiments.scenario.scenario import load_scenario
from experiments.studies.tasks import perform
from experiments.studies.tasks.headroom import ABOVE, STEP, Site, arrivals, configuration_of, largest
from experiments.verify.guess import index_of_dispersion
from simulator.errors import InputError

DEPLOYMENT = ["llama-3.1-8b", "h100-80-fp8", 1]
ASKED = {"scenario": "azure-2023", "deployment": DEPLOYMENT, "level": 0.95, "duration_s": 300.0, "draws": 2, "seed": 0}


@pytest.mark.parametrize("truth", [-150, -17, -1, 0, 3, 11])
@pytest.mark.parametrize("start", [-60, 0, 5])
def test_a_threshold_is_found(truth, start):
    asked = []

    def holds(step):
        assert -155 <= step <= 12
        asked.append(step)
        return step <= truth

    assert largest(holds, start, -155, 12) == truth
    assert len(set(asked)) < 40


def test_the_ends_of_the_range():
    assert largest(lambda step: False, 0, -155, 12) is None
    assert largest(lambda step: True, 0, -155, 12) == 12
    assert largest(lambda step: step == -155, 0, -155, 12) == -155


def test_what_holds_again_a_little_above_is_found():
    good = {*range(-50, -9), -7, -3}
    assert largest(lambda step: step in good, 0, -50, 12) == -3
    far = {*range(-50, -9), -9 + ABOVE}  # one step beyond what is looked at from the last that holds
    assert largest(lambda step: step in far, -20, -50, 12) == -10


@pytest.mark.parametrize("kind", [{"poisson": True}, {"source": "code"}], ids=["poisson", "code"])
def test_what_is_found_holds_and_more_does_not(kind):
    (row,) = perform("headroom", {**ASKED, "arrivals": kind, "replicas": 2}).rows
    assert row["feasible"]
    assert 0 < row["cap"] <= STEP**12 * 1.1
    assert all(0 < row[name] <= 1 for name in ("cap_staffing", "cap_sequence"))
    scenario = load_scenario("azure-2023")
    with arrivals(scenario, kind, 300.0) as make:
        site = Site(scenario=scenario, configuration=configuration_of(scenario, *DEPLOYMENT), replicas=2, make=make,
                    level=0.95, draws=2, seed=0)  # fmt: skip
        found = next(step for step in range(-155, 13) if site.row(step)["rate_per_s"] == row["rate_per_s"])
        assert site.row(found)["cap"] == row["cap"]
        assert site.at(found).holds
        assert not any(site.at(step).holds for step in range(found + 1, found + ABOVE + 1))
    assert STEP**ABOVE >= 1.15


def test_the_same_arguments_the_same_row():
    asked = {**ASKED, "arrivals": {"poisson": True}, "replicas": 1, "draws": 1}
    assert perform("headroom", asked).rows == perform("headroom", asked).rows


def test_bursts_need_more_headroom_than_poisson():
    caps = {
        name: perform("headroom", {**ASKED, "arrivals": kind, "replicas": 1}).rows[0]
        for name, kind in (("Poisson", {"poisson": True}), ("code", {"source": "code"}))
    }
    assert caps["code"]["cap"] < 0.6 * caps["Poisson"]["cap"]
    assert caps["code"]["dispersion"] > 5 * caps["Poisson"]["dispersion"]
    assert caps["Poisson"]["dispersion"] == pytest.approx(1, abs=0.7)


def test_a_trace_is_laid_over_itself_and_its_bursts_pool(tmp_path):
    """Ten minutes of one burst a minute: layers of it are as many bursts as layers, at times of their own."""
    path = tmp_path / "conv.csv"
    times = [60.0 * minute + 0.01 * number for minute in range(10) for number in range(60)]
    rows = "".join(f"{time:.2f},conv,500,100\n" for time in times)
    path.write_text("arrival_s,source,input_tokens,output_tokens\n" + rows)
    scenario = load_scenario("azure-2023")
    with arrivals(scenario, {"trace": f"conv={path}"}, 1200.0) as make:
        for rate in (0.5, 1.0, 4.0):
            made = make(rate, 3)
            assert len(made) / 1200 == pytest.approx(rate, rel=0.15)
        thin, thick = (index_of_dispersion(make(rate, 3).arrival_s, 1200.0, 10.0) for rate in (0.5, 1.0))
        assert thin == pytest.approx(1 + 0.5 * (thick - 1), rel=0.25)


def test_nothing_holds_where_a_request_alone_is_too_slow():
    changes = {"query_types": [{**rule.model_dump(), "ttft_slo_s": 1e-4} for rule in load_scenario("azure-2023").types]}
    (row,) = perform("headroom", {**ASKED, "arrivals": {"poisson": True}, "replicas": 1, "changes": changes}).rows
    assert not row["feasible"]
    assert "cap" not in row
    assert "TTFT" in row["status"]


def test_what_is_not_there_is_told():
    asked = {**ASKED, "arrivals": {"poisson": True}, "replicas": 1}
    with pytest.raises(InputError, match="no configuration of scenario azure-2023"):
        perform("headroom", {**asked, "deployment": ["llama-3.1-8b", "h200", 1]})
    with pytest.raises(InputError, match="no source 'chat'"):
        perform("headroom", {**asked, "arrivals": {"source": "chat"}})


def test_the_command(run_cli, tmp_path):
    command = ("study", "headroom", "--arrivals", "Poisson", "--replicas", "1,2", "--duration", "2m", "--draws", 1,
               "--seeds", 2)  # fmt: skip
    first = run_cli(*command, "--json", "--jobs", 1)
    assert run_cli(*command, "--json", "--jobs", 2, "--out", tmp_path / "s").stdout == first.stdout
    shown = run_cli(*command, "--jobs", 1)
    assert "Poisson: 0." in shown.stdout
    for bad, words in (
        (("--model", "nothing"), "is no configuration"),
        (("--replicas", "1.5"), "whole numbers"),
        (("--arrivals", "chat"), "is none of Poisson, conv, code"),
        (("--scenario", "paper-base"), "has no queues"),
    ):
        done = run_cli("study", "headroom", *bad)
        assert (done.code, words in done.stderr.replace("\n", " ")) == (2, True), done.stderr


def test_caps_below_are_called_the_wrong_tool(run_cli):
    done = run_cli("study", "headroom", "--arrivals", "code", "--replicas", "1", "--duration", "20m", "--draws", 2,
                   "--seeds", 1, "--jobs", 1)  # fmt: skip
    assert "static headroom is the wrong tool" in done.stdout.replace("\n", " ")
