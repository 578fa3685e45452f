"""The arithmetic of a measurement, what the command prints and writes; never a time."""

import itertools
import json
import subprocess
import sys

import pytest
import torch

from swin_dense.benchmarks import backbone, memory, operators, peers, ratios, tables
from swin_dense.benchmarks.ratios import Case, LeftOutError, Pair
from swin_dense.cli import benchmark as command
from swin_dense.ops import extension

SMALL = ["--shape", "104,72", "--seconds", "0"]
needs_kernels = pytest.mark.skipif(extension.MISSING is not None, reason="compares kernels")


def test_the_ratio_is_the_median_over_turns():
    taken = ratios.Pair(ours=[1.0, 2.0, 4.0, 1.0, 1.0], theirs=[3.0, 4.0, 4.0, 5.0, 10.0])
    assert taken.ratio == 3.0  # of 3, 2, 1, 5, 10
    assert taken.spread == (2.0, 5.0)


def test_both_sides_take_turns_after_a_warm_up():
    order = []
    taken = ratios.pair(lambda: order.append("o"), lambda: order.append("t"), 0.0)
    assert order == list("ot") + list("to") + list("ot") + list("to")
    assert len(taken.ours) == len(taken.theirs) == 3


@pytest.mark.parametrize(("side", "expected"), [(1, 0.5), (4, 2.0)])
def test_seconds_are_those_of_the_call(monkeypatch, side, expected):
    ticks = itertools.count(0, expected)
    monkeypatch.setattr(ratios.time, "perf_counter", lambda: next(ticks))
    assert ratios.seconds_of(lambda: side) == expected


def test_peak_memory_is_a_size_in_mebibytes():
    assert 20 < ratios.peak_memory() < 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    ballast = b"x" * (400 << 20)
    code = "from swin_dense.benchmarks.ratios import *; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ratios.peak_memory() > len(ballast) / 2**20 + float(done.stdout) / 4
    assert float(done.stdout) < ratios.peak_memory() - 300


def test_a_machine_is_named():
    machine = ratios.machine()
    assert machine["threads"] >= 1
    assert machine["torch"].count(".") >= 2
    assert machine["cpu"]


@pytest.fixture
def known(monkeypatch):
    """Three cases with known figures in place of the backbone's, the last of them left out."""

    def missing(seconds):
        raise LeftOutError("timm: not installed, left out")

    cases = [
        Case("forward", "mmdet", lambda seconds: Pair([0.5, 1.0, 0.25], [1.0, 3.0, 0.25])),
        Case("backward", "mmdet", lambda seconds: Pair([seconds], [4 * seconds])),
        Case("forward", "timm", missing),
        Case("backward", "timm", missing),
    ]
    table = tables.Table(tables.SPEED, lambda *_, **__: cases, ("compiled", "batch"))
    monkeypatch.setitem(tables.TABLES, "backbone", table)


def test_every_table_can_be_asked_for():
    assert tuple(tables.TABLES) == command.WHAT


def test_a_row_is_its_medians_its_ratio_and_its_middle_half(known, capsys, tmp_path):
    path = tmp_path / "figures.json"
    assert command.main(["backbone", "--seconds", "2", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ours ms  theirs ms  times as fast" in lines[1]
    assert " ".join(lines[3].split()) == "forward mmdet 500.00 1000.00 2.00 1.50 to 2.50"
    assert " ".join(lines[4].split()) == "backward mmdet 2000.00 8000.00 4.00 4.00 to 4.00"
    assert lines[5:] == ["timm: not installed, left out"]  # once for both rows

    content = json.loads(path.read_text())
    assert content["rows"][0] == {
        "name": "forward",
        "against": "mmdet",
        "ours_ms": 500,
        "theirs_ms": 1000,
        "ratio": 2,
        "spread": [1.5, 2.5],
        "turns": 3,
    }
    assert (content["what"], content["shape"]) == ("backbone", [1216, 800])
    assert content["left_out"] == lines[5:]
    assert {"cpu", "threads", "torch", "kernels", "device"} <= content["machine"].keys()


def test_rows_are_chosen_by_name_or_other_side(known, capsys):
    assert command.main(["backbone", "--rows", "backward, mm"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]] == ["backward"]


def test_an_unknown_row_is_a_mistake_that_names_the_rows(known, capsys):
    assert command.main(["backbone", "--rows", "Forward"]) == 2
    said = capsys.readouterr().err
    assert "no row of backbone holds 'Forward'" in said
    assert "\n  forward, mmdet\n" in said


def test_growth_is_given_for_each_pixel(monkeypatch, capsys):
    case = Case("forward", "large", lambda seconds: Pair([0.5], [16.0]))
    table = tables.Table(tables.GROWTH, lambda *_: [case])
    monkeypatch.setitem(tables.TABLES, "growth", table)
    assert command.main(["growth"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()[1:]
    assert "(16 is linear)" in header
    assert row.split()[-5:] == ["32.00", "32.00", "to", "32.00", "2.00"]


@needs_kernels
@pytest.mark.parametrize(
    ("rows", "count"), [("window_attention", 8), ("gather", 4), ("2000", 1), ("roi_al", 2)]
)
def test_ops_are_measured(rows, count, capsys):
    assert command.main(["ops", *SMALL, "--rows", rows]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3 + count


@needs_kernels
def test_the_usual_path_is_the_other_side(monkeypatch):
    """Of as many tokens as the stage of an image of that size has."""
    calls = []

    def noted(qkv, bias, pad_qkv, window, shift, back_end):
        calls.append((back_end, qkv.shape[1:3], qkv.shape[4], shift, qkv.is_inference()))

    monkeypatch.setattr(operators, "window_attention", noted)
    by_label = {f"{c.name}, {c.against}": c for c in operators.cases("cpu", (1216, 802))}
    by_label["window_attention, forward, SDPA with a mask"].measure(0)
    assert set(calls) == {(None, (201, 304), 3, 3, False), ("sdpa", (201, 304), 3, 3, False)}
    calls.clear()
    by_label["window_attention, forward, stage 3, usual path (plain)"].measure(0)
    assert {call[:3] for call in calls} == {(b, (51, 76), 12) for b in (None, "plain")}


def test_ops_without_kernels_are_a_mistake(monkeypatch, capsys):
    monkeypatch.setattr(extension, "MISSING", "not built")
    assert command.main(["ops"]) == 2
    assert "nothing to compare: kernels: none, not built." in capsys.readouterr().err


def test_both_models_are_measured(capsys):
    rows = ["--rows", "forward and backward, fp32, mmdet"]
    assert command.main(["backbone", *SMALL, *rows]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert command.main(["backbone", *SMALL, "--rows", "timm"]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == ["timm: not installed, left out"]


def test_a_peer_that_does_not_import_is_left_out(monkeypatch):
    def broken(height, width):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setitem(peers.PEERS, "mmdet", broken)
    with pytest.raises(LeftOutError, match=r"does not import \(operator .* exist\), left out$"):
        peers.load("mmdet", 72, 104)


def test_our_maps_have_the_sizes_of_mmdet_s():
    image = torch.randn(1, 3, 72, 104)
    sides = [peers.load(name, 72, 104)(image) for name in ("ours", "mmdet")]
    assert [m.shape for m in sides[0]] == [m.shape for m in sides[1]]


def test_compiled_sides_are_asked_for(capsys):
    assert command.main(["growth", "--compile"]) == 2
    assert "--compile: growth has no rows about it" in capsys.readouterr().err
    plain = {c.against for c in backbone.cases("cpu", (104, 72))}
    both = {c.against for c in backbone.cases("cpu", (104, 72), compiled=True)}
    assert both - plain == {"ours, compiled", "timm, compiled"}


def test_several_images_at_a_time(monkeypatch, capsys):
    assert command.main(["ops", "--batch", "2"]) == 2
    said = capsys.readouterr().err
    assert "--batch: ops has no rows about it, only backbone and memory" in said
    seen = []
    monkeypatch.setattr(backbone, "run", lambda model, image, *_: seen.append(image.shape))
    row = ["--rows", "Swin V2, forward, fp32"]
    assert command.main(["backbone", *SMALL, "--batch", "3", *row]) == 0
    assert set(seen) == {(3, 3, 72, 104)}
    assert "image 104x72, 3 at a time" in capsys.readouterr().out


def test_growth_is_measured_at_two_sizes(monkeypatch, capsys):
    monkeypatch.setattr(backbone, "SIDES", (32, 64))
    seen = []
    monkeypatch.setattr(backbone, "run", lambda model, image, *_: seen.append(image.shape))
    assert command.main(["growth", "--seconds", "0", "--rows", "forward, fp32"]) == 0
    assert seen[:2] == [(1, 3, 32, 32), (1, 3, 64, 64)]
    assert "forward, fp32, 32x32    64x64 " in capsys.readouterr().out


def test_memory_is_that_of_fresh_processes(monkeypatch, capsys):
    """Ours against ours, whatever this process holds."""
    monkeypatch.setattr(memory, "OTHER", peers.OURS)
    ballast = b"x" * (800 << 20)
    assert command.main(["memory", *SMALL, "--rows", "training step, fp32"]) == 0
    row = capsys.readouterr().out.splitlines()[3].split()
    ours, theirs, ratio, share = map(float, row[-4:])
    assert ratio == pytest.approx(1, abs=0.15)
    assert share == pytest.approx(ours / theirs, abs=0.01)
    # The gradients of 27.5 million weights alone are 105 MiB.
    assert 100 < min(ours, theirs) < len(ballast) / 2**20


def test_a_process_that_fails_is_a_fault_of_ours(monkeypatch):
    monkeypatch.setattr(peers, "load", lambda *_: None)
    monkeypatch.setattr(memory, "OTHER", "nobody")
    monkeypatch.setattr(peers, "OURS", "nobody")
    with pytest.raises(RuntimeError, match=r"measuring nobody ended with 1:\n(?s:.*)KeyError"):
        memory.cases("cpu", (104, 72))[0].measure(0)
