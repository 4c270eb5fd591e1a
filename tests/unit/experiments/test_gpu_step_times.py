"""The parts of benchmarks/gpu_step_times.py that need no GPU."""

import types

import pytest

from benchmarks import gpu_step_times as script
from experiments.calibrate.measurements import read_measurements
from simulator.catalog import load_catalog

CATALOG = load_catalog()


@pytest.mark.parametrize(
    ("model", "width"),
    [("llama-3.1-8b", 14336), ("llama-3.1-70b", 28672), ("qwen3-32b", 25600), ("qwen2.5-7b", 18944)],
)
def test_widths_of_real_models(model, width):
    assert script.feed_forward_width(CATALOG.models[model]) == pytest.approx(width, abs=128)


def test_points_and_memory():
    found = list(script.points([1, 4], [128, 512], [1000]))
    assert [point.prefill for point in found] == [True, True, False, False]
    model = CATALOG.models["llama-3.1-8b"]
    small, large = (script.needed_bytes(model, script.Point(False, batch, 1, 1000)) for batch in (1, 101))
    assert small == pytest.approx(16.06e9 + 131072e3, rel=1e-3)
    assert large - small == pytest.approx(100 * 131072e3, rel=2e-3)


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA H100 80GB HBM3", "h100-80"),
        ("NVIDIA H200", "h200-141"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla V100", None),
    ],
)
def test_devices(device, gpu):
    assert script.guess_gpu(device) == gpu
    assert set(script.DEVICES.values()) <= set(CATALOG.gpus)


def test_without_pytorch_it_says_so(monkeypatch, capsys, tmp_path):
    def missing():
        raise ImportError("torch")

    monkeypatch.setattr(script, "import_torch", missing)
    assert script.main(["--out", str(tmp_path / "x.csv")]) == 0
    assert capsys.readouterr() == ("", "PyTorch is not installed: nothing measured\n")
    assert not list(tmp_path.iterdir())


def fake_torch(*, available=True, name="NVIDIA L4", memory=24e9):
    cuda = types.SimpleNamespace(
        is_available=lambda: available,
        get_device_name=lambda: name,
        get_device_properties=lambda _: types.SimpleNamespace(total_memory=memory),
        empty_cache=lambda: None,
        OutOfMemoryError=MemoryError,
    )
    return types.SimpleNamespace(cuda=cuda)


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(script, "import_torch", lambda: fake_torch(available=False))
    assert script.main([]) == 0
    assert "no CUDA GPU here" in capsys.readouterr().err


def test_rows_are_measurements(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(script, "import_torch", lambda: fake_torch())
    monkeypatch.setattr(script, "measure", lambda *_: 12.5)
    out = tmp_path / "steps.csv"
    assert (
        script.main(["--batches", "1,8", "--query-tokens", "128", "--context-tokens", "1024,65536", "--out", str(out)])
        == 0
    )
    assert out.read_text().splitlines()[0] == (
        "phase,gpu,precision,model,tensor_parallel,batch,query_tokens,context_tokens,step_ms"
    )
    found = read_measurements(out)
    assert (len(found), set(found.gpu), set(found.precision)) == (3, {"l4"}, {"fp16"})
    assert found.batch.tolist() == [1, 1, 8]
    assert "2 points do not fit into 90% of NVIDIA L4's memory" in capsys.readouterr().err


def test_out_of_memory_keeps_the_other_rows(monkeypatch, capsys, tmp_path):
    def measure(torch, model, point, *_):
        if point.prefill:
            raise MemoryError
        return 12.5

    monkeypatch.setattr(script, "import_torch", lambda: fake_torch())
    monkeypatch.setattr(script, "measure", measure)
    out = tmp_path / "steps.csv"
    points = ["--batches", "1,8", "--query-tokens", "128", "--context-tokens", "1024"]
    assert script.main([*points, "--out", str(out)]) == 0
    assert read_measurements(out).batch.tolist() == [1, 8]
    assert "1 points do not fit" in capsys.readouterr().err


def test_nothing_is_left_half_written(monkeypatch, capsys, tmp_path):
    def renaming_fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script, "import_torch", lambda: fake_torch())
    monkeypatch.setattr(script, "measure", lambda *_: 12.5)
    monkeypatch.setattr("os.replace", renaming_fails)
    points = ["--batches", "1", "--query-tokens", "128", "--context-tokens", "1024"]
    assert script.main([*points, "--out", str(tmp_path / "steps.csv")]) == 2
    assert "steps.csv: cannot be written: No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "llama-9"], "--model 'llama-9' is unknown"),
        (["--gpu", "h1000"], "--gpu 'h1000' is unknown"),
        (["--repetitions", "0"], "expected 1 or more"),
        (["--out", "no/such/folder/x.csv"], "--out no/such/folder/x.csv: expected a file in a folder that exists"),
    ],
)
def test_bad_options(capsys, arguments, told):
    assert script.main(arguments) == 2
    assert told in capsys.readouterr().err


def test_bad_lists_and_devices(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--batches", "1,x"])
    assert stop.value.code == 2
    monkeypatch.setattr(script, "import_torch", lambda: fake_torch(name="Tesla V100"))
    assert script.main([]) == 2
    assert "name it with --gpu" in capsys.readouterr().err
