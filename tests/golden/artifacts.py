"""What the commands leave behind on small cases, as digests: `python -m tests.golden.artifacts` records them anew.

JSON counts to the byte once what depends on the machine or on the sources is taken out; Parquet by the names, types and
values of its columns; pictures and pages to the byte, where the drawing libraries are of the recorded versions.
"""

import contextlib
import gzip
import hashlib
import importlib.metadata
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("artifacts.json")
DRAWN = (".png", ".svg", ".html")
DRAWING = ("matplotlib", "plotly")
HEXADECIMAL = re.compile(rb"\b[0-9a-f]{16}\b")  # names of runs, which hash the sources
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


def study_command(name):
    """A small run of a study, one seed, in this process."""
    verb = [name] if name == "stress" else ["study", name]
    return [*verb, *SMALL_STUDIES[name], "--seeds", "1", "--jobs", "1"]


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
        return digest_of(HEXADECIMAL.sub(b"", path.read_bytes()))
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


def run_here(arguments):
    """Standard output of a command that has to succeed."""
    from experiments.cli.app import main

    argv, stdout, stderr = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["tokenfleet", *arguments]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            main()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"tokenfleet {' '.join(arguments)}: exit {stop.code}\n{stderr.getvalue()}") from None
    finally:
        sys.argv = argv
    return stdout.getvalue()


def make(folder):
    """Digests of all cases by name, made in an empty folder."""
    found = {}
    shipped = next((ROOT / "experiments").rglob("azure-2023.toml")).read_text()
    static = shipped.replace('"batching"', '"static"', 1).replace('capacity = "batching"', 'capacity = "paper"')
    Path(folder, "static.toml").write_text(static)
    with contextlib.chdir(folder):
        for name, arguments in COMMANDS.items():
            stdout = run_here(arguments)
            if "--json" in arguments:
                found[f"{name} --json"] = digest_of_json(stdout)
        for name in SMALL_STUDIES:
            run_here([*study_command(name), "--out", f"study-{name}"])
            found[f"study {name} --json"] = digest_of_json(
                run_here([*study_command(name), "--out", f"study-{name}", "--json"])
            )
            if name != "scale":  # its page shows planning times
                run_here(["report", f"study-{name}", "--out", f"study-{name}.html"])
    return found | digests_of_tree(Path(folder))


def drawing_versions():
    return {name: importlib.metadata.version(name) for name in DRAWING}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = make(folder)
    if "--check" in sys.argv:
        recorded = json.loads(RECORDED.read_text())["digests"]
        differ = sorted(name for name in recorded.keys() | made if recorded.get(name) != made.get(name))
        for name in differ:
            print(f"{name}: {recorded.get(name)} recorded, {made.get(name)} now")
        print(f"{len(made) - len(differ)} equal, {len(differ)} differ")
        sys.exit(bool(differ))
    RECORDED.write_text(
        json.dumps({"drawn_with": drawing_versions(), "digests": made}, indent=1, sort_keys=True) + "\n"
    )
