"""Values pinned: a small synthetic trace, and the two real files of the Azure trace of 2023."""

import hashlib
import io
import os
from contextlib import redirect_stdout
from datetime import datetime
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from simulator.workload import merge_traces
from traces.formats.registry import read_trace
from traces.synthetic import azure_profiles
from traces.synthetic.generate import synthesise
from traces.synthetic.profile import load_profile, parse_profile

# sha256 of the columns, times in units of 100 ns. It changes when the generator, the profile or NumPy's streams do.
SMALL_TRACE_SHA256 = "8e61a58b75774f91f1ac8d78eacc79383aed91c87e5426f22cd17f59f4d195f8"


def test_a_small_synthetic_trace_is_pinned() -> None:
    trace = synthesise(load_profile(), duration_s=120.0, seed=42)
    # What must hold whatever the digest says: two minutes, in order, both sources.
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert 0 <= trace.arrival_s[0] <= trace.span_s < 120
    assert 300 < len(trace) < 3000
    digest = hashlib.sha256()
    ticks = np.rint(trace.arrival_s * 1e7)
    for column in (ticks, trace.source, trace.input_tokens, trace.output_tokens):
        digest.update(column.astype("<i8").tobytes())
    assert digest.hexdigest() == SMALL_TRACE_SHA256


def real_file(name: str) -> Path:
    folder = os.environ.get("TOKENFLEET_DATA")
    if folder is None:
        pytest.skip("the environment variable TOKENFLEET_DATA does not name a data folder")
    path = Path(folder) / "traces" / name
    if not path.is_file():
        pytest.skip(f"TOKENFLEET_DATA: there is no {path}")
    return path


CONV, CODE = "AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv"


@pytest.mark.parametrize(
    ("name", "rows", "start", "span_s", "input_tokens", "output_tokens"),
    [
        (CONV, 19_366, datetime(2023, 11, 16, 18, 15, 46, 680590), 3501.721937, 22_361_870, 4_088_665),
        (CODE, 8_819, datetime(2023, 11, 16, 18, 17, 3, 979960), 3435.948056, 18_059_974, 245_896),
    ],
    ids=["conv", "code"],
)
def test_the_real_files(
    name: str, rows: int, start: datetime, span_s: float, input_tokens: int, output_tokens: int
) -> None:
    read = read_trace(real_file(name))
    assert (len(read.trace), read.rows_in_file, read.rows_skipped) == (rows, rows, 0)
    assert read.trace.start == start
    assert read.trace.arrival_s[0] == 0
    assert read.trace.span_s == span_s
    assert read.trace.input_tokens.sum() == input_tokens
    assert read.trace.output_tokens.sum() == output_tokens


def test_the_real_files_merge_on_one_clock() -> None:
    merged = merge_traces([read_trace(real_file(name)).trace for name in (CONV, CODE)])
    assert merged.sources == ("conv", "code")
    assert len(merged) == 19_366 + 8_819
    assert merged.arrival_s[merged.source == 1][0] == pytest.approx(77.29937, abs=1e-9)


def test_the_profile_is_what_the_fitting_prints_for_the_real_files() -> None:
    paths = [str(real_file(name)) for name in (CONV, CODE)]
    with redirect_stdout(io.StringIO()) as printed:
        azure_profiles.main(["azure-2023", *paths])
    text = (resources.files("traces") / "profiles" / "azure-2023.toml").read_text(encoding="utf-8")
    again, kept = (parse_profile(t, name="profile") for t in (printed.getvalue(), text))
    assert (again.attribution, again.quantile_levels) == (kept.attribution, kept.quantile_levels)
    for new, old in zip(again.sources, kept.sources, strict=True):
        assert (new.name, new.input_tokens, new.output_tokens) == (old.name, old.input_tokens, old.output_tokens)
        assert (new.rate_per_s, new.dispersion, new.spearman) == (old.rate_per_s, old.dispersion, old.spearman)
        for a, b in zip(new.modulation, old.modulation, strict=True):
            assert (a.time_scale_s, a.on_share) == (b.time_scale_s, b.on_share)
            assert a.squared_cv == pytest.approx(b.squared_cv, rel=0.02)
