"""What the commands leave behind on small cases, as digests: `python -m tests.golden.artifacts` records them anew.

JSON counts to the byte once what depends on the machine or on the sources is taken out; Parquet by the names, types and
values of its columns; pictures and pages to the byte, where the drawing libraries are of the recorded versions.
`--check` compares with what is recorded, as the test beside it does.
"""

import contextlib
import gzip
import hashlib
import importlib.metadata
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.command_line import CliRun, run_in_process

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("artifacts.json")
DRAWN = (".png", ".svg", ".html", ".md")
DRAWING = ("matplotlib", "plotly")
HEXADECIMAL = re.compile(rb"\b[0-9a-f]{16}\b")  # names of runs, which hash the sources
VERSIONS = re.compile(
    rb"(&#34;\w+&#34;: &#34;)\d+(\.\d+)+\w*&#34;"
)  # of Python and the packages, as a page states them
MACHINE_FILES = ("timing.json", "timing.parquet")
MACHINE_KEYS = {"planning_s", "engine_cpu_s", "wall_s", "engine", "seconds", "code", "versions", "run", "content_hash"}

SMALL_STUDIES = {
    "stress": ["--policy", "gh", "--factors", "1,1.5", "--duration", "1m"],
    "volatility": ["--policy", "gh", "--sigmas", "0.04", "--duration", "15m"],
    "diurnal": ["--policy", "gh", "--duration", "2h"],
    "scale": ["--policy", "gh", "--policy", "agh", "--sizes", "3x2x2,4x3x3"],
    "ablation": ["--policy", "agh", "--policy", "agh[-m2]"],
    "budget": ["--policy", "gh", "--shares", "0.5,1"],
    "interval": ["--policy", "gh", "--intervals", "15m,1h", "--duration", "2h"],
    "frontier": ["--policy", "gh", "--caps", "0.5", "--factors", "1,1.5", "--duration", "15m", "--effort", "1"],
    "headroom": ["--arrivals", "Poisson", "--replicas", "1,2", "--duration", "2m", "--draws", "1"],
    "regret": ["--policy", "gh", "--interval", "20m"],
    "hysteresis": ["--policy", "gh", "--weights", "0,1", "--duration", "15m"],
}
REPLAY = ["replay", "trace.parquet", "--interval", "2m", "--policy"]
COUNTS = "select policy, count(*) as n from requests group by all order by 1"
PAPER = ["--scenario", "paper-base"]
COMMANDS = {
    "trace": ["trace", "synth", "--profile", "azure-2023", "--duration", "10m", "--out", "trace.parquet"],
    "describe": ["trace", "describe", "trace.parquet", "--json"],
    "replay": [*REPLAY, "gh", "--policy", "agh", "--token-log", "--out", "replay", "--json"],
    "replay-reference": [*REPLAY, "gh", "--engine", "reference", "--token-log", "--out", "reference", "--json"],
    "replay-static": [*REPLAY, "static[gh]", "--scenario", "static.toml", "--out", "static", "--json"],
    "replay-roofline": [*REPLAY, "agh+", "--delay-model", "roofline", "--out", "roofline", "--json"],
    "report": ["report", "replay", "--markdown", "replay.md", "--out", "replay.html"],
    "results": [
        "results",
        "replay",
        "--sql",
        COUNTS,
        "--json",
    ],
    "plan": ["plan", *PAPER, "--policy", "exact", "--out", "plan.json", "--certificate", "proof.json.gz", "--json"],
    "plan-robust": ["plan", *PAPER, "--policy", "robust[mean:gh]", "--json"],
    "plan-replayed": ["replay", "trace.parquet", "--plan", "replay/plans/0-gh/0000000s.json", "--json"],
    "verify": ["plan", "trace.parquet", "--policy", "gh", "--verify", "simulate", "--out", "verified.json", "--json"],
    "check": ["check", "verified.json", "--against-simulation", "--trace", "trace.parquet", "--json"],
    "stress-problem": ["stress", *PAPER, "--policy", "gh", "--seeds", "2", "--jobs", "1", "--json"],
}


def verb_of(study):
    """The command of a study."""
    return [study] if study == "stress" else ["study", study]


def digest_of(content):
    return hashlib.sha256(content).hexdigest()[:16]


def without_machine(value):
    """JSON data without what depends on the machine, on the packages' versions or on the text of the sources."""
    if isinstance(value, dict):
        return {key: without_machine(item) for key, item in value.items() if key not in MACHINE_KEYS}
    if isinstance(value, list):
        return [without_machine(item) for item in value]
    return value


def digest_of_json(text):
    return digest_of(json.dumps(without_machine(json.loads(text)), indent=1).encode())


def digest_of_table(path):
    """Of the names, types and values of a table, in the order in which they stand; not of how Parquet packs them."""
    table = pq.read_table(path).combine_chunks()
    table = table.select([name for name in table.column_names if name not in MACHINE_KEYS])
    content = hashlib.sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        content.update(f"{field.name} {kind}\n{column.to_pylist()!r}\n".encode())
    return content.hexdigest()[:16]


def digest_of_file(path):
    """Digest of one file of a run directory, or None where the machine decides what is in it."""
    if path.name in MACHINE_FILES or "timings" in path.parts:
        return None
    if path.suffix == ".parquet":
        return digest_of_table(path)
    if path.suffix == ".json":
        return digest_of_json(path.read_text())
    if path.suffix == ".gz":
        return digest_of_json(gzip.decompress(path.read_bytes()).decode())
    if path.suffix == ".html":
        return digest_of(VERSIONS.sub(rb"\1", HEXADECIMAL.sub(b"", path.read_bytes())))
    return digest_of(path.read_bytes())


def digests_of_tree(folder):
    """Digest of each file below a folder by its path; the runs of a sweep, named by a hash of the sources, left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "/runs/" not in f"/{name}":
            digest = digest_of_file(path)
            if digest is not None:
                found[name] = digest
    return found


def run_well(*arguments):
    """What a command printed that has to succeed."""
    done = run_in_process(*arguments)
    assert done.code == 0, f"tokenfleet {' '.join(arguments)}: exit {done.code}\n{done.stderr}"
    return done


def run_commands(folder):
    """Digests of all that `COMMANDS` leave behind, by name, made in an empty folder."""
    made = {}
    shipped = next((ROOT / "experiments").rglob("azure-2023.toml")).read_text()
    static = shipped.replace('"batching"', '"static"', 1).replace('capacity = "batching"', 'capacity = "paper"')
    Path(folder, "static.toml").write_text(static)
    with contextlib.chdir(folder):
        for name, arguments in COMMANDS.items():
            done = run_well(*arguments)
            if "--json" in arguments:
                made[f"{name} --json"] = digest_of_json(done.stdout)
    return made | digests_of_tree(Path(folder))


@dataclass(frozen=True)
class SmallStudy:
    """A study that was run twice, for one seed, the second time with --json; and digests of what it left behind."""

    path: Path
    first: CliRun
    again: CliRun
    digests: dict[str, str]


def run_small_study(name, folder):
    """Run a study and its report in an empty folder."""
    command = [*verb_of(name), *SMALL_STUDIES[name], "--seeds", "1", "--jobs", "1", "--out", f"study-{name}"]
    with contextlib.chdir(folder):
        first, again = run_well(*command), run_well(*command, "--json")
        if name != "scale":  # its page shows planning times
            run_well("report", f"study-{name}", "--out", f"study-{name}.html")
    digests = {f"study {name} --json": digest_of_json(again.stdout)} | digests_of_tree(Path(folder))
    return SmallStudy(Path(folder, f"study-{name}"), first, again, digests)


def make_all():
    """Digests of all cases by name."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        made |= run_commands(folder)
    for name in SMALL_STUDIES:
        with tempfile.TemporaryDirectory() as folder:
            made |= run_small_study(name, folder).digests
    return made


def drawing_versions():
    """Versions of the libraries that draw, by name."""
    return {name: importlib.metadata.version(name) for name in DRAWING}


def differences(made, *, study=None):
    """A line for each digest that is not as recorded.

    Parameters
    ----------
    made
        Digests by name: those of a study, those of `COMMANDS`, or all.
    study
        Whose digests these are; "" for those of no study, None for all.
    """
    known = json.loads(RECORDED.read_text())
    wanted = {name: digest for name, digest in known["digests"].items() if study in (None, study_of(name))}
    left_out = () if known["drawn_with"] == drawing_versions() else DRAWN
    return [
        f"{name}: {wanted.get(name)} recorded, {made.get(name)} now"
        for name in sorted(wanted.keys() | made)
        if wanted.get(name) != made.get(name) and not name.endswith(left_out)
    ]


def study_of(name):
    """The study that left a digest behind, or an empty text."""
    found = re.match(r"study[ -](\w+)", name)
    return found[1] if found else ""


if __name__ == "__main__":
    made = make_all()
    if "--check" in sys.argv:
        differ = differences(made)
        print(*differ, sep="\n")
        print(f"{len(made) - len(differ)} equal, {len(differ)} differ")
        sys.exit(bool(differ))
    RECORDED.write_text(
        json.dumps({"drawn_with": drawing_versions(), "digests": made}, indent=1, sort_keys=True) + "\n"
    )
