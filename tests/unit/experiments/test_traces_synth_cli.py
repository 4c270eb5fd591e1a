"""`tokenfleet trace synth` and `trace fit`: results, messages, and nothing half-written."""

import hashlib
import json
from pathlib import Path

import pytest

from traces.formats.registry import read_trace
from traces.source import TraceFiles
from traces.synthetic.profile import load_profile, read_profile

SYNTH = ("trace", "synth")


@pytest.fixture
def real(run_cli, tmp_path) -> Path:
    path = tmp_path / "real.csv"
    done = run_cli(*SYNTH, "--profile", "azure-2023", "--duration", "1h", "--seed", "3", "--out", path)
    assert done.code == 0
    return path


def test_a_file_and_what_is_said_about_it(run_cli, tmp_path) -> None:
    path = tmp_path / "new" / "week.parquet"
    arguments = (*SYNTH, "--duration", "3h", "--rate-factor", "0.01", "--seed", "7", "--out", path)
    done = run_cli(*arguments)
    assert (done.code, done.stderr) == (0, "")
    survey = TraceFiles([(path, None)]).survey()
    assert f"{survey.requests:,} requests over 3.00 h (conv " in done.stdout.replace("\n", " ")
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    told = json.loads(run_cli(*arguments, "--json").stdout)
    assert told["rows"] == survey.requests == sum(told["sources"].values())
    assert (told["sha256"], told["span_s"]) == (survey.sha256, survey.span_s)
    assert told["start"] == "2024-05-10T00:00:00+00:00"
    assert any("assumed from azure-2023" in sentence for sentence in told["assumptions"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first
    assert [file.name for file in path.parent.iterdir()] == ["week.parquet"]


def test_the_hour_that_a_replay_without_a_trace_gets(run_cli, tmp_path, real) -> None:
    done = run_cli(
        *SYNTH, "--profile", "azure-2023", "--duration", "1h", "--seed", "3", "--out", tmp_path / "h.parquet"
    )
    assert done.code == 0
    csv, parquet = read_trace(real).trace, read_trace(tmp_path / "h.parquet").trace
    assert csv.arrival_s.tolist() == parquet.arrival_s.tolist()
    assert csv.output_tokens.tolist() == parquet.output_tokens.tolist()
    assert 28_000 < len(csv) < 31_000


def test_start_curve_bursts_and_volatility(run_cli, tmp_path) -> None:
    def rows(*more: str) -> int:
        done = run_cli(*SYNTH, "--duration", "1h", "--rate-factor", "0.1", "--out", tmp_path / "t.csv", "--json", *more)
        assert done.code == 0, done.stderr
        told: int = json.loads(done.stdout)["rows"]
        return told

    noon = sum(source.requests_per_h[4 * 24 + 12] for source in load_profile("azure-2024").sources)  # of a Tuesday
    assert rows("--start", "2024-05-14T12:00:00Z") == pytest.approx(0.1 * noon, rel=0.03)
    assert rows("--no-curve", "--no-bursts") == pytest.approx(0.1 * 3600 * (45.15 + 27.77), rel=0.03)
    calm = rows("--no-curve", "--no-bursts", "--volatility", "0", "--volatility-step", "1m")
    assert calm == pytest.approx(26_251, rel=0.03)
    assert rows("--no-curve", "--no-bursts", "--volatility", "0.9", "--volatility-step", "1m") != calm


def test_blocks_of_a_real_trace(run_cli, tmp_path, real) -> None:
    done = run_cli(*SYNTH, "--resample", real, "--duration", "2h", "--out", tmp_path / "t.parquet", "--json")
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["blocks"], told["block_s"], set(told["sources"])) == (12, 300.0, {"conv", "code"})
    assert told["rows"] == pytest.approx(2 * 29_300, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--profile", "none"), "there is no trace profile 'none'; known profiles: azure-2023, azure-2024"),
        (("--profile", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("--duration", "0"), "--duration: '0' is no duration above zero"),
        (("--start", "noon"), "--start: 'noon' is no time in ISO 8601"),
        (("--rate-factor", "nan"), "rate_factor: expected a finite number above zero, found nan"),
        (("--rate-factor", "1e-12"), "no request arrives in this time"),
        (("--rate-factor", "1e6"), "requests in an hour, found"),
        (("--time-factor", "0"), "time_factor: expected a finite number above zero, found 0.0"),
        (("--volatility", "inf"), "volatility: expected a finite number from zero, found inf"),
        (("--volatility-step", "5m"), "--volatility-step needs --volatility"),
        (("--volatility", "0.1", "--volatility-step", "0.1s"), "volatility step: expected at least 1 s, found 0.1"),
        (("--block", "5m"), "a profile takes no --block; --block go"),
        (("--resample", "x.csv", "--profile", "azure-2023"), "--resample takes no --profile"),
        (("--resample", "x.csv", "--no-bursts"), "--resample takes no --bursts"),
        (("--resample", "x.csv"), "error: x.csv: "),
    ],
)
def test_bad_input_is_one_message_and_no_file(run_cli, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli(*SYNTH, "--duration", "1m", "--out", "t.parquet", *arguments)
    assert done.code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_trace(run_cli, tmp_path) -> None:
    assert "expected a name in .parquet, .csv or .csv.gz" in run_cli(*SYNTH, "--out", tmp_path / "t.txt").stderr
    assert "--out: expected a file to write, found the folder" in run_cli(*SYNTH, "--out", tmp_path).stderr


def test_fit_and_synth_again(run_cli, tmp_path, real) -> None:
    profile = tmp_path / "mine.toml"
    done = run_cli("trace", "fit", real, "--out", profile, "--json")
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    assert [source["name"] for source in told["sources"]] == [
        source.name for source in read_profile(str(profile)).sources
    ]
    assert told["requests"] == len(read_trace(real).trace)
    again = run_cli(*SYNTH, "--profile", profile, "--duration", "1h", "--out", tmp_path / "again.csv", "--json")
    assert again.code == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == pytest.approx(told["requests"], rel=0.05)
    bad = run_cli("trace", "fit", real, "--out", tmp_path / "mine.json")
    assert bad.code == 2
    assert "--out: expected a name in .toml" in bad.stderr
