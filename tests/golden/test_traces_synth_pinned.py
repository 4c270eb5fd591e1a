"""Pinned: two hours of the week of 2024, and its profile as the fitting prints it from the real files."""

import hashlib
import io
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from traces.io.chunks import concatenate
from traces.synthetic import azure_profiles
from traces.synthetic.generate import Volatility, stream_trace
from traces.synthetic.profile import load_profile, parse_profile

# sha256 of the columns, times in units of 100 ns. It changes when the generator, the profile or NumPy's streams do.
SMALL_TRACE_SHA256 = "17e43003469ada47925ce9ecb06bee4ec8dd6ab1451a65d837e9ece1f775a2ed"


def test_a_small_part_of_the_week_is_pinned() -> None:
    chunks = stream_trace(
        load_profile("azure-2024"),
        duration_s=7200.0,
        seed=42,
        rate_factor=0.05,
        start=datetime(2024, 5, 14, 12, tzinfo=UTC),
        volatility=Volatility(sigma=0.04),
    )
    trace = concatenate(list(chunks))
    # What must hold whatever the digest says: two hours, in order, both sources.
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert 0 <= trace.arrival_s[0] <= 3600 < trace.span_s < 7200
    assert 20_000 < len(trace) < 60_000
    digest = hashlib.sha256()
    ticks = np.rint(trace.arrival_s * 1e7)
    for column in (ticks, trace.source, trace.input_tokens, trace.output_tokens):
        digest.update(column.astype("<i8").tobytes())
    assert digest.hexdigest() == SMALL_TRACE_SHA256


def test_the_profile_of_2024_is_what_the_fitting_prints(data_dir: Path) -> None:
    names = ("AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv", "azure2024_hourly_requests.csv")
    paths = [data_dir / "traces" / name for name in names]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"TOKENFLEET_DATA: there is no {path}")
    with redirect_stdout(io.StringIO()) as printed:
        azure_profiles.main(["azure-2024", *map(str, paths)])
    again, kept = parse_profile(printed.getvalue(), name="printed"), load_profile("azure-2024")
    for field in ("name", "attribution", "assumptions", "curve_start", "quantile_levels"):
        assert getattr(again, field) == getattr(kept, field)
    for new, old in zip(again.sources, kept.sources, strict=True):
        for field in (
            "name",
            "rate_per_s",
            "requests_per_h",
            "dispersion",
            "spearman",
            "input_tokens",
            "output_tokens",
        ):
            assert getattr(new, field) == getattr(old, field)
        assert np.array(new.joint) == pytest.approx(np.array(old.joint), abs=0.11)
        assert new.follow_share == pytest.approx(old.follow_share, rel=0.02)
        assert new.follow_delay_s == pytest.approx(old.follow_delay_s, rel=0.02)
        for a, b in zip(new.modulation, old.modulation, strict=True):
            assert a.time_scale_s == b.time_scale_s
            assert a.squared_cv == pytest.approx(b.squared_cv, rel=0.02)
