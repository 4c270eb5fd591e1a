"""The nine additions of CONTRIBUTING.md: a copy of the packages gets one of each kind and uses it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.verify_samples import SMALL

ROOT = Path(__file__).parents[2]
PACKAGES = ("simulator", "policies", "traces", "experiments")

POLICY = """
from dataclasses import replace
from policies.heuristics.greedy import Gh

class Thrifty:
    name = "thrifty"

    def plan(self, problem, *, incumbent, stop, seed):
        return replace(Gh().plan(problem, incumbent=incumbent, stop=stop, seed=seed), policy=self.name)
"""
DELAY = """
from simulator.delay.port import StepCost, TwoPhaseDelay

class Flat:
    def request_delay(self, model, tier, n, m):
        return TwoPhaseDelay(prefill_s_per_token=1e-5, decode_s_per_token=0.02)

    def step_cost(self, model, tier, n, m):
        return StepCost(base_s=0.02, prefill_s_per_token=1e-5, decode_s_per_sequence=0.0, context_s_per_token=0.0)
"""
FORMAT = '''
from traces.io.reader import Asked
from traces.io.rows import Rows, in_blocks

class Colons:
    """Lines `arrival:input:output`, below a line `colons`."""

    unit = "line"

    def recognises(self, path, head):
        return head.startswith(b"colons\\n")

    def blocks(self, path, asked):
        rows = Rows(path, asked, unit=self.unit, time_unit="s")
        names = {"arrival_s": "arrival", "input_tokens": "input", "output_tokens": "output"}

        def read():
            for number, line in enumerate(path.read_text().splitlines()[1:], start=2):
                arrival, inputs, outputs = line.split(":")
                fields = {"arrival_s": float(arrival), "input_tokens": int(inputs), "output_tokens": int(outputs)}
                rows.add(number, line, fields, names)
                yield

        yield from in_blocks(rows, asked, read())

READER = Colons()
'''
METRIC = """
METRICS += (
    Metric(
        name="tokens_served", section=Section.REQUESTS, label="tokens served", unit="tokens", digits=0,
        meaning="tokens of the requests that were served", compute=lambda m: float(m.tally.sums["tokens"].sum()),
    ),
)
"""
STUDY = '''"""Does a greedy plan cost anything?"""

from experiments.options import ScenarioOption
from experiments.show.parts import Section, Table
from experiments.studies.shared.conduct import Asked, Design, ground_option, study
from experiments.sweep.specification import Run


@study(policies=("gh",), seeds=1)
def command(asked: Asked, scenario: ScenarioOption = "paper-base") -> Design:
    """One plan.

    Example: `tokenfleet study price`
    """
    ground, files = ground_option(None, scenario)
    runs = [Run(task="plan", parameters={"ground": ground, "seed": 0, "policy": "gh"}, label="gh")]
    return Design(runs=runs, options={"ground": ground}, files=files)


def view(frame, timing, marker):
    rows = [[f"{cost:.2f}"] for cost in frame["cost_usd"]]
    return [Section(title="Price", tables=[Table(title="Price", columns=("cost [USD]",), rows=rows)])]
'''


def append(path, text):
    path.write_text(f"{path.read_text()}\n{text}")


def renamed_sources(block):
    """A block with sources of its own: a catalogue refuses two of one name."""
    for source in re.findall(r'^sources\."?([\w.-]+)"? =', block, re.MULTILINE):
        block = block.replace(source, f"new-{source}")
    return block


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The packages with one more of each kind."""
    house = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, house / package)
    (house / "policies" / "thrifty.py").write_text(POLICY)
    append(
        house / "policies" / "registry.py",
        'POLICIES["thrifty"] = PolicyEntry(make=_plain("policies.thrifty:Thrifty"), summary="gh, renamed")',
    )
    gpus = house / "simulator" / "catalog" / "gpus.toml"
    block = re.search(r"\[gpu\.l4\].*?(?=\n\[gpu\.)", gpus.read_text(), re.DOTALL).group()
    append(
        gpus, renamed_sources(block).replace("[gpu.l4]", "[gpu.newcard]").replace('aliases = ["', 'aliases = ["new-')
    )
    models = house / "simulator" / "catalog" / "models.toml"
    name = 'model."llama-3.2-1b"'
    block = re.search(rf"\[{re.escape(name)}\].*?(?=\n\[model)", models.read_text(), re.DOTALL).group()
    append(models, renamed_sources(block).replace("llama-3.2-1b", "new-1b").replace("Llama-3.2-1B", "New-1B"))
    (house / "simulator" / "delay" / "flat.py").write_text(DELAY)
    append(
        house / "simulator" / "delay" / "__init__.py",
        'from simulator.delay.flat import Flat\nDELAY_MODELS["flat"] = lambda catalog: Flat()',
    )
    (house / "traces" / "formats" / "colons.py").write_text(FORMAT)
    append(
        house / "traces" / "formats" / "registry.py",
        'READERS = {"colons": Format("numbers and colons", "traces.formats.colons"), **READERS}',
    )
    append(house / "experiments" / "measures" / "metrics.py", METRIC)
    (house / "experiments" / "studies" / "price.py").write_text(STUDY)
    shutil.copy(ROOT / "tests" / "last_come.py", house / "simulator" / "replica" / "last_come.py")
    append(
        house / "simulator" / "replica" / "registry.py",
        "from simulator.replica.last_come import LAST_COME\nDISCIPLINES[LAST_COME.name] = LAST_COME",
    )
    return house


@pytest.fixture(scope="module")
def tokenfleet(house):
    """What a command of that house prints."""

    def run(*arguments):
        command = [sys.executable, "-c", "from experiments.cli.app import main; main()", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(house)}
        done = subprocess.run(
            command, cwd=house, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_all_of_them_run_together(house, tokenfleet):
    """A trace of the new format, on the new GPU and model, planned by the new policy, served by the new discipline."""
    lines = [f"{second}:600:60" for second in range(0, 120, 4)] + [f"{second}:2000:30" for second in range(0, 120, 8)]
    (house / "some.txt").write_text("\n".join(["colons", *sorted(lines, key=lambda line: int(line.split(":")[0]))]))
    scenario = SMALL.replace('discipline = "batching"', 'discipline = "last-come"')
    scenario = scenario.replace('["llama-3.1-8b"]', '["new-1b"]').replace('"l40s-fp8", "h100-80-fp8"', '"newcard-fp8"')
    scenario = scenario.replace("error_slo", "percentile_slos = { ttft_s = { p97 = 1.5 } }\nerror_slo", 1)
    (house / "small.toml").write_text(scenario)
    told = tokenfleet(
        *("replay", "some.txt", "--scenario", "small.toml", "--policy", "thrifty", "--delay-model", "flat"),
        *("--engine", "reference", "--interval", "1m", "--out", "run", "--json"),
    )
    (run,) = json.loads(told)["runs"]
    assert run["policy"] == "thrifty"
    assert run["served"] == run["arrived"] == 45
    assert run["tokens_served"] == 30 * 660 + 15 * 2030
    assert run["tpot_s"]["p50"] == pytest.approx(0.02, rel=0.2)
    assert "p97" in json.dumps(run["percentile_slos"])
    (plan,) = {path.read_text() for path in (house / "run" / "plans").rglob("0000000s.json")}
    assert {(d["model"], d["tier"]) for d in json.loads(plan)["deployments"]} == {("new-1b", "newcard-fp8")}
    tokenfleet("report", "run", "--markdown", "run.md")
    assert f"| tokens served [tokens] | {run['tokens_served']:,.0f} |" in (house / "run.md").read_text()
    assert f'<td class="number">{run["tokens_served"]:,.0f}</td>' in (house / "run" / "report.html").read_text()


def test_the_new_metric_is_a_column_of_studies(tokenfleet):
    study = ["stress", "--policy", "gh", "--factors", "1", "--duration", "1m", "--seeds", 1, "--jobs", 1, "--json"]
    rows = json.loads(tokenfleet(*study))["rows"]
    assert [row["tokens_served"] > 0 for row in rows if row["way"] == "simulated"] == [True] * 3


def test_the_new_study_is_listed_and_runs(tokenfleet):
    assert "Does a greedy plan cost anything?" in tokenfleet("study", "--help")
    assert "Price" in tokenfleet("study", "price", "--jobs", 1)


def test_the_lists_know_them(tokenfleet):
    for kind, name in (("policies", "thrifty"), ("gpus", "newcard"), ("models", "new-1b"), ("traces", "colons")):
        assert name in tokenfleet("list", kind)
