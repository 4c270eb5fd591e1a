"""What strangers send is looked at without harm, and nothing of the user's is lost."""

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.replay.directory import run_directory
from experiments.scenario.scenario import load_scenario
from experiments.show.printable import console, printable
from experiments.sweep.folder import RESULTS, SweepFolder, read_results
from experiments.sweep.specification import Run, Sweep
from simulator.errors import InputError, RunError
from simulator.planning import files
from tests.verify_samples import SMALL

ESCAPES = "arrival_s,source,input_tokens,output_tokens\n0.0,\x1b]0;PWN\x07\x1b[31mred,100,10\n1.0,\x1b[2Jx,100,10\n"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, run_cli):
    folder = tmp_path_factory.mktemp("runs") / "run"
    trace = folder.with_name("trace.parquet")
    assert run_cli("trace", "synth", "--profile", "azure-2023", "--duration", "1m", "--out", trace).code == 0
    assert run_cli("replay", trace, "--policy", "gh", "--out", folder).code == 0
    return folder


class TestSql:
    @pytest.mark.parametrize(
        ("sql", "told"),
        [
            ("copy (select 1) to '{}/x.csv'", "expected one SELECT, found COPY"),
            ("copy (select 1 as a) to '{}/run/requests.parquet'", "expected one SELECT, found COPY"),
            ("select 1; select 2", "expected one SELECT, found SELECT, SELECT"),
            (";", "expected one SELECT, found nothing"),
            ("set enable_external_access = true", "expected one SELECT, found SET"),
            ("attach '{}/x.db'", "expected one SELECT, found ATTACH"),
            ("select * from read_csv('/etc/passwd')", "Permission Error"),
            ("select * from glob('/*')", "Permission Error"),
            ("select * from read_parquet('{}/other.parquet')", "Permission Error"),
            ("select * from run_dir", "Catalog Error"),
        ],
    )
    def test_it_reads_these_tables_and_does_nothing_else(self, run_dir, run_cli, sql, told):
        before = sorted((path, path.stat().st_mtime_ns) for path in run_dir.rglob("*"))
        shutil.copy(run_dir / "requests.parquet", run_dir.parent / "other.parquet")
        run = run_cli("results", run_dir, "--sql", sql.format(run_dir.parent))
        assert (run.code, run.stdout) == (2, "")
        assert told in run.stderr
        assert sorted((path, path.stat().st_mtime_ns) for path in run_dir.rglob("*")) == before

    def test_the_name_of_a_file_is_no_sql(self, run_dir, run_cli, tmp_path):
        folder = tmp_path / 'we\'ird "na me" \udcff'
        shutil.copytree(run_dir, folder)
        bad = f"x\" as select 1; copy (select 1) to '{tmp_path / 'pwn.csv'}'; --.parquet".replace("/", "_")
        shutil.copy(folder / "requests.parquet", folder / bad)
        run = run_cli("results", folder, "--sql", "select count(*) as n from requests", "--json")
        assert run.code == 0, run.stderr
        assert json.loads(run.stdout)["rows"][0][0] > 0
        tables = {row[0] for row in json.loads(run_cli("results", folder, "--json").stdout)["rows"]}
        assert tables == {"agreement", "costs", "intervals", "load", "rentals", "requests"}


class TestTerminal:
    @pytest.mark.parametrize("command", [["trace", "describe"], ["replay", "--policy", "gh"], ["trace", "compare"]])
    def test_no_name_steers_it(self, run_cli, tmp_path, command):
        path = tmp_path / "esc\x1b[31m.csv"
        path.write_text(ESCAPES)
        files_given = [path, path] if command[-1] == "compare" else [path]
        run = run_cli(*command, *files_given)
        assert "PWN" in run.stdout + run.stderr
        assert not any(ord(char) < 32 and char != "\n" for char in run.stdout + run.stderr)

    def test_what_is_shown_instead(self, capsys):
        assert printable("a\x1b[1m\x9b\u202eb\udcff\tc\n") == "a\\x1b[1m\\x9b\\u202eb\\udcff\tc\n"
        console().print("x\x1b]0;t\x07y", markup=False)
        assert capsys.readouterr().out == "x\\x1b]0;ty\n"


class TestDocuments:
    def test_a_small_archive_of_much_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "MOST_BYTES", 1 << 20)
        for name, pack in (("a.json.gz", gzip.compress), ("a.json", bytes)):
            (tmp_path / name).write_bytes(pack(b" " * (2 << 20)))
            with pytest.raises(InputError, match="holds more than 1 MiB"):
                files.read_json(tmp_path / name)

    def test_a_key_that_stands_twice(self, tmp_path):
        (tmp_path / "a.json").write_text('{"a": [{"b": 1, "c": 2, "b": 3}]}')
        with pytest.raises(InputError, match="the key 'b' stands twice in one object"):
            files.read_json(tmp_path / "a.json")

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            (
                "storage_capacity_gb = ",
                "storage_capacity_gb = 1e300 #",
                "limits.storage_capacity_gb: expected a number of at most 1e+30",
            ),
            ("cap = ", "cap = true #", "limits.cap: Input should be a valid number, found True"),
            ("cap = ", 'cap = "0.8" #', "limits.cap: Input should be a valid number, found '0.8'"),
        ],
    )
    def test_a_scenario_is_as_strict_as_a_problem(self, tmp_path, old, new, told):
        path = tmp_path / "s.toml"
        text = SMALL if old in SMALL else SMALL.replace("[limits]", f"[limits]\n{old}1000", 1)
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError) as error:
            load_scenario(str(path))
        assert told in str(error.value)

    def test_a_byte_order_mark_is_none_of_its_text(self, tmp_path):
        path = tmp_path / "s.toml"
        path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
        assert load_scenario(str(path)).name

    def test_a_seed_has_an_end(self, run_cli):
        run = run_cli("replay", "--policy", "gh", "--seed", 2**64)
        assert run.code == 2
        assert "--seed" in run.stderr


def run_into(path, meanwhile, *, overwrite=False):
    """A run whose folder is `path`, during which something happens."""
    with run_directory(path, overwrite=overwrite) as folder:
        (folder / "mine").write_text("mine")
        meanwhile(folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestFolders:
    def test_what_appears_meanwhile_stays_and_the_results_stand_beside_it(self, tmp_path):
        target = tmp_path / "run"

        def somebody(_):
            target.mkdir()
            (target / "theirs").write_text("theirs")

        with pytest.raises(RunError, match=r"made by somebody else.*run-2"):
            run_into(target, somebody, overwrite=True)
        assert (names(target), names(tmp_path / "run-2"), names(tmp_path)) == (["theirs"], ["mine"], ["run", "run-2"])

    def test_of_two_runs_into_one_folder_neither_is_lost(self, tmp_path):
        def second(_):
            run_into(tmp_path / "run", lambda folder: (folder / "second").touch())

        with pytest.raises(RunError, match="run-2"):
            run_into(tmp_path / "run", second)
        assert (names(tmp_path / "run"), names(tmp_path / "run-2")) == (["mine", "second"], ["mine"])

    def test_an_earlier_run_that_was_changed_meanwhile_stays(self, tmp_path):
        target = tmp_path / "run"
        target.mkdir()
        (target / "run.json").touch()
        with pytest.raises(RunError, match="run-2"):
            run_into(target, lambda _: (target / "notes.txt").write_text("mine"), overwrite=True)
        assert names(target) == ["notes.txt", "run.json"]
        run_into(target, lambda _: None, overwrite=True)
        assert names(target) == ["mine"]

    def test_those_of_killed_runs_go_and_those_of_others_stay(self, tmp_path):
        made = []
        run_into(tmp_path / "other", lambda folder: made.append(folder.name))
        (name,) = (name.replace(".other.", ".run.") for name in made)
        dead, alive = (name.replace(f"-{os.getpid()}-", f"-{process}-") for process in (2**22, os.getppid()))
        for left in (dead, alive, dead.replace(".run.", ".other.")):
            (tmp_path / left).mkdir()
        run_into(tmp_path / "run", lambda _: None)
        assert names(tmp_path) == sorted([alive, dead.replace(".run.", ".other."), "other", "run"])

    def test_a_full_disk_is_one_line(self, tmp_path):
        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(RunError, match=r"run: cannot be written: No space left on device$"):
            run_into(tmp_path / "run", full)
        assert names(tmp_path) == []

    def test_a_vanished_folder_is_one_line(self, tmp_path):
        def vanish(folder):
            shutil.rmtree(folder)
            (folder / "x").write_text("")

        with pytest.raises(RunError, match="cannot be written"):
            run_into(tmp_path / "run", vanish)

    def test_sigterm_is_as_ctrl_c(self, tmp_path):
        command = [sys.executable, "-m", "experiments.cli.app", "replay", "--engine", "reference", "--policy", "agh"]
        with subprocess.Popen(
            [*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            while not any(tmp_path.iterdir()) and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            told = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert told.strip().splitlines()[-1].startswith("interrupted")
        assert list(tmp_path.iterdir()) == []


class TestSweeps:
    def sweep(self, **options):
        runs = [Run(task="nothing", parameters={"n": n}, label=str(n)) for n in range(2)]
        return Sweep(study="budget", options=options, runs=runs, inputs={})

    def test_one_sweep_one_folder(self, tmp_path):
        folder = SweepFolder(tmp_path / "sweep", self.sweep(), resume=True)
        with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on .* since 20"):
            SweepFolder(tmp_path / "sweep", self.sweep(seeds=2), resume=False)
        folder.close()
        SweepFolder(tmp_path / "sweep", self.sweep(seeds=2), resume=False).close()

    def test_rows_of_another_description_are_refused(self, tmp_path):
        for name, options in (("a", {}), ("b", {"seeds": 2})):
            folder = SweepFolder(tmp_path / name, self.sweep(**options), resume=True)
            folder.write_results([])
            folder.close()
            read_results(tmp_path / name)
        shutil.copy(tmp_path / "b" / RESULTS, tmp_path / "a" / RESULTS)
        with pytest.raises(InputError, match=r"is not of the sweep that run\.json describes"):
            read_results(tmp_path / "a")
