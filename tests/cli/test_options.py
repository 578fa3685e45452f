"""Values as OpenMMLab's tools read them, spaces kept, and launchers that did not launch."""

import argparse
import sys

import pytest
from mmengine.config import DictAction

from swin_dense.cli import options


@pytest.mark.parametrize(
    "text",
    ["1", "-2.5e-4", "True", "false", "None", "none", "abc", "", "1,2", "1,2,", ",1", "[1,2]"]
    + ["(1,2)", "(1,)", "[]", "()", "[(1,2),[a,b],c]", "[[1,2],(3,(4,5))]", "a/b.c:d", "'x'"]
    + ["\"[1,'a']\"", "['a','b']", "1e5", "inf", "x=y", "[x=1,y]", "0x10", "[None,true]"],
)
def test_a_value_is_what_openmmlab_s_tools_read(text):
    expected = DictAction._parse_iterable(text)
    found = options.value(text)
    assert found == expected or (found != found and expected != expected)
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/my set", "/data/my set"),
        ("[/data/my set, b c]", ["/data/my set", "b c"]),
        ("( 1, 2.5 , None)", (1, 2.5, None)),
        ("'a b'", "a b"),
        ("(1,2),(3,4)", [(1, 2), (3, 4)]),  # no end in OpenMMLab's
        ("photos (a,b)", "photos (a,b)"),
        ("'a,b'", "a,b"),
        ("['a,b',\"c,(\",it's]", ["a,b", "c,(", "it's"]),
        ('24"', '24"'),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("{'a': (1, 2)}", {"a": (1, 2)}),
        ("[{'a': 1, 'b': 2}, 3]", [{"a": 1, "b": 2}, 3]),
        ("{}_{}", "{}_{}"),
        ("1e-4", 1e-4),
    ],
)
def test_spaces_stay_within_a_text(text, expected):
    assert options.value(text) == expected


@pytest.mark.parametrize("text", ["[1,2", "1,2]", "(1,[2)", "[(]", "[a,b][c,d]"])
def test_a_bracket_without_partner_is_an_error(text):
    with pytest.raises(ValueError, match="bracket without its partner"):
        options.value(text)


def parsed(*words):
    parser = options.parser("command", "")
    options.add_config(parser)
    options.add_launcher(parser)
    return parser.parse_args(["x.py", *words])


def test_pairs_add_up():
    words = ["--cfg-options", "a.b=1", "c=x=y", "--launcher", "none", "--cfg-options", "a.b=3"]
    assert parsed(*words).cfg_options == {"a.b": 3, "c": "x=y"}
    assert parsed().cfg_options is None


@pytest.mark.parametrize(
    ("word", "why"),
    [("a", ". A value with spaces stands in quotes"), ("=3", ". A value"), (" =3", ". A value")]
    + [("a=[1,2", ": a bracket without its partner"), ("a={b: 1}", ": a dict has its names in")],
)
def test_what_is_no_pair_is_named(word, why, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("--cfg-options", "b=1", word)
    assert f"error: --cfg-options: write KEY=VALUE, not {word!r}{why}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["/data/a,b", "/my data/[1] (2)", "2024", "007", "/it's", "a=b", "/\u5199\u771f/\u00e9"]
)
def test_a_path_is_taken_as_it_is_written(path):
    key = "train_dataloader.dataset.data_root"
    assert parsed("--cfg-options", f"{key}={path}").cfg_options == {key: path}
    assert parsed("--cfg-options", f"{key}='{path}'").cfg_options in (
        {key: path},
        {key: f"'{path}'"},
    )
    assert parsed("--cfg-options", "load_from=None").cfg_options == {"load_from": None}


@pytest.fixture
def alone(monkeypatch):
    """Nobody started this process as one of several."""
    named = [name for _, names in options.LAUNCHERS.values() for name in names]
    more = ("TORCHELASTIC_RUN_ID", "GROUP_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
    for name in (*named, *more):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    return monkeypatch


@pytest.mark.parametrize(
    ("launcher", "variable", "program"),
    [("pytorch", "RANK", "torchrun"), ("slurm", "SLURM_PROCID", "srun")],
)
def test_a_launcher_has_started_this_process(alone, capsys, launcher, variable, program):
    with pytest.raises(SystemExit, match="2"):
        parsed("--launcher", launcher)
    said = capsys.readouterr().err
    assert f"{launcher} is for processes that {program} starts, and {variable} is not set." in said
    assert f"As in {program} tools/train.py ...;" in said
    for name in options.LAUNCHERS[launcher][1]:
        with pytest.raises(SystemExit, match="2"):
            parsed("--launcher", launcher)
        assert f", and {name} is not set" in capsys.readouterr().err
        alone.setenv(name, "0")
    assert parsed("--launcher", launcher).launcher == launcher


def test_processes_of_torchrun_do_not_work_alone(alone, capsys):
    alone.setenv("TORCHELASTIC_RUN_ID", "none")
    alone.setenv("WORLD_SIZE", "1")
    assert parsed().launcher == "none"
    alone.setenv("WORLD_SIZE", "3")
    with pytest.raises(SystemExit, match="2"):
        parsed()
    assert "torchrun started 3 processes" in capsys.readouterr().err
    for name in options.LAUNCHERS["pytorch"][1]:
        alone.setenv(name, "3")
    assert parsed("--launcher", "pytorch").launcher == "pytorch"
    alone.delenv("TORCHELASTIC_RUN_ID")  # started by something else that sets the same
    with pytest.raises(SystemExit, match="2"):
        parsed()
    assert "something started 3 processes" in capsys.readouterr().err


def test_processes_of_srun_do_not_work_alone(alone, capsys):
    alone.setenv("SLURM_PROCID", "0")
    alone.setenv("SLURM_NTASKS", "2")  # of the job: one process in its script is no mistake
    assert parsed().launcher == "none"
    alone.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(SystemExit, match="2"):
        parsed()
    assert "srun started 2 processes, which would each" in capsys.readouterr().err


def test_srun_and_torchrun_start_one_run(alone, capsys):
    """srun starts a torchrun on each machine, which have to know of one another."""
    for name in options.LAUNCHERS["pytorch"][1]:
        alone.setenv(name, "2")
    alone.setenv("SLURM_STEP_NUM_TASKS", "2")
    alone.setenv("TORCHELASTIC_RUN_ID", "7")
    alone.setenv("GROUP_WORLD_SIZE", "2")
    assert parsed("--launcher", "pytorch").launcher == "pytorch"
    for name, text in (("slurm", "give --launcher pytorch"), ("pytorch", "--nnodes 2 --rdzv-")):
        alone.setenv("GROUP_WORLD_SIZE", "1")
        with pytest.raises(SystemExit, match="2"):
            parsed("--launcher", name)
        assert text in capsys.readouterr().err


def test_an_unknown_launcher_is_named(alone, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("--launcher", "mpi")
    assert "'mpi'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["64", "64,16", "64,48,32", "64,big", "", "-64,48"])
def test_a_size_has_two_sides(text):
    with pytest.raises(argparse.ArgumentTypeError, match="two sides of at least 32 pixels"):
        options.scale(text)


@pytest.mark.parametrize(("text", "expected"), [("320,512", (512, 320)), ("96x64", (96, 64))])
def test_the_longer_side_is_first(text, expected):
    assert options.scale(text) == expected
