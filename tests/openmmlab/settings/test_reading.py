"""Configs read as data: as mmengine reads them, and hostile ones not at all."""

import random
from pathlib import Path

import mmdet
import mmseg
import pytest
from conftest import ROOT
from mmengine.config import Config

from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import buildable, reading

OURS = sorted((ROOT / "configs").rglob("*.py"))
THEIRS = [
    path
    for library in (mmdet, mmseg)
    for path in sorted((Path(library.__file__).parent / ".mim/configs").rglob("*.py"))
    if path.stem != "override_category" and "mmpretrain" not in path.read_text()
]
SAMPLE = random.Random(17).sample(THEIRS, 40)


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert list(dict.keys(found)) == list(dict.keys(expected))
        for key in dict.keys(found):
            assert_same(dict.__getitem__(found, key), dict.__getitem__(expected, key))
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("path", [*OURS[::4], *SAMPLE], ids=lambda path: path.stem)
def test_a_config_is_read_as_mmengine_reads_it(path):
    try:
        theirs = Config.fromfile(str(path))
    except ImportError as error:
        pytest.skip(str(error)[:80])  # a base needs another library
    found = reading.read(path)
    assert_same(found._cfg_dict, theirs._cfg_dict)
    assert (found.text, found.filename) == (theirs.text, theirs.filename)


ODD = {
    "base.py": "a = dict(b=1, c=[1, dict(d=2)])\nt = dict(type='X', k=1)\nn = 3\n",
    "delete.py": "_base_ = 'base.py'\na = dict(_delete_=True, z=1)\n",
    "part.py": "_base_ = ['./base.py']\nx = _base_.a\nx.b = 5\n"
    "y = {{_base_.a.c}}\nz = _base_.n * 2\n",
    "update.py": "_base_ = 'base.py'\nm = _base_.a\nm.update(dict(q=1))\nm.pop('b')\n"
    "_base_.t.k += 1\n",
    "path.py": "d = '{{ fileDirname }}/{{fileBasenameNoExtension}}{{fileExtname}}'\n"
    "e = '{{fileBasename}}'\n",
    "env.py": "a = '{{$SWIN_DENSE_A:x}}/{{$DATA_ROOT:data}}'\nb = {{'$SWIN_DENSE_B:80'}}\n",
    "values.json": '{"_base_": "base.py", "a": {"b": [1, null, true, 2.5]}, "n": {{_base_.n}}}',
    "values.yaml": "_base_: base.py\na: {b: [1, ~, true, 2.5]}\nwords: yes it is\n",
    "crlf.py": "a = 1\r\nb = '''x\r\ny'''\r\n",
    "dunder.py": "__a = 1\nb = __a\n_c = 2\n",
    "scope.py": "_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'\n"
    "model = dict(neck=dict(num_outs=4))\n",
    "twice.py": "_base_ = 'base.py'\n_base_ = []\nd = dict(_delete_=True, a=1)\ne = d\n",
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_config_is_read_as_mmengine_reads_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_DENSE_A", "from_outside")
    monkeypatch.delenv("DATA_ROOT", raising=False)
    for file, text in ODD.items():
        (tmp_path / file).write_text(text, newline="")
    found, theirs = reading.read(tmp_path / name), Config.fromfile(str(tmp_path / name))
    assert_same(found._cfg_dict, theirs._cfg_dict)
    assert found.env_variables == theirs.env_variables
    assert found.text == theirs.text


HOSTILE = {
    "system.py": "import os\nos.system('touch WRITTEN')\n",
    "import.py": "a = __import__('os').system('touch WRITTEN')\n",
    "open.py": "a = 1\nb = open('WRITTEN', 'w')\n",
    "eval.py": "a = eval(\"open('WRITTEN', 'w')\")\n",
    "lambda.py": "a = (lambda: open('WRITTEN', 'w'))()\n",
    "getattr.py": "a = getattr(getattr([], '__class__'), '__base__')\n",
    "class.py": "a = ().__class__.__bases__[0].__subclasses__()\n",
    "body.py": "class A:\n    open('WRITTEN', 'w')\n",
    "decorator.py": "@print\ndef f():\n    pass\n",
    "fstring.py": "a = f'{().__class__.__mro__}'\n",
    "format.py": "a = '{0.__class__.__mro__}'.format(())\n",
    "power.py": "a = 10**10**10\n",
    "range.py": "a = list(range(10**10))\n",
    "bomb.py": "a = [0 for i in range(9999) for j in range(9999) for k in range(9999)]\n",
    "shared.py": "a = []\nfor i in range(40):\n    a = [a, a, a]\n",
    "cycle.py": "a = []\na.append(a)\n",
    "deep.py": f"a = {'[' * 100_000}{']' * 100_000}\n",
    "minus.py": f"a = {'-' * 100_000}1\n",
    "sum.py": f"a = {'1+' * 200_000}1\n",
    "dots.py": f"a = b{'.c' * 100_000}\n",
    "itself.py": "_base_ = 'itself.py'\n",
    "round.py": "_base_ = 'trip.py'\n",
    "secret.py": "a = '{{$AWS_SECRET:x}}'\n",
    "braces.py": "# " + "{{$A:" * 150_000 + "\n",
    "passwd.py": "_base_ = '/etc/passwd'\n",
    "program.py": "_base_ = open('WRITTEN', 'w')\n",
    "custom.py": "custom_imports = dict(imports=['writes'], allow_failed_imports=True)\n",
    "package.py": "_base_ = 'os.path::a/b.py'\n",
    "null.py": "a = 1\0\n",
    "number.py": f"a = {'9' * 5000}\n",
    "reserved.py": "filename = 'x'\n",
    "lazy.py": "from mmengine.config import read_base\n"
    "with read_base():\n    from .base import *\n",
    "long.py": "a = 1\n" * 200_000,
    "tag.yaml": "a: !!python/object/apply:os.system ['touch WRITTEN']\n",
    "own_tag.yaml": "a: !mine 1\n",
    "laughs.yaml": "a: &a [1]\n"
    + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n"
        for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
    ),
    "merge.yaml": "a: &a {x: 1}\nb:\n  <<: *a\n",
    "deep.yaml": "a: " + "[" * 100_000,
    "list.yaml": "- 1\n",
    "deep.json": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "keys.json": '{"_base_": {"a": 1}}',
    "half.json": '{"a": ',
    "none.toml": "a = 1\n",
}


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AWS_SECRET", "s3cret")
    Path("writes.py").write_text("open('WRITTEN', 'w').close()\n")
    Path("trip.py").write_text("_base_ = ['round.py']\n")
    yield tmp_path
    assert not Path("WRITTEN").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_config_runs_nothing_and_is_named(name, hostile):
    Path(name).write_text(HOSTILE[name])
    with pytest.raises(InputError) as caught:
        reading.read(hostile / name)
    said = str(caught.value)
    assert said.startswith("config: ")
    assert len(said) < 1500
    assert str(hostile) in said or "/etc/passwd" in said
    assert "root:" not in said
    assert "s3cret" not in said


@pytest.mark.parametrize("raw", [b"a = '\xff\xfe'\n", b"\xff\xfea\x00", b"\x80"])
def test_what_is_no_text_is_named(raw, tmp_path):
    (tmp_path / "bytes.py").write_bytes(raw)
    with pytest.raises(InputError, match=r"bytes.py, line 1: it is not UTF-8"):
        reading.read(tmp_path / "bytes.py")


def test_a_mark_at_the_start_of_a_file_is_none_of_its_text(tmp_path):
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert reading.read(tmp_path / "marked.py").a == 1


def test_what_only_a_program_has_names_the_line_and_the_way_out(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("a = 1\n\nimport math\nb = math.pi\n")
    with pytest.raises(InputError, match=r"program.py, line 3: an import: import math\. Configs"):
        reading.read(path)
    assert reading.read(path, trust=True).b > 3


def test_bases_that_state_the_same_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "leaf.py").write_text("y = 1\n_base_ = ['a.py', 'b.py']\n")
    with pytest.raises(InputError, match=r"leaf.py, line 2: its bases both state x; b.py"):
        reading.read(tmp_path / "leaf.py")


@pytest.mark.parametrize(
    "part",
    [
        dict(type="os.system", command="touch x"),
        dict(type="antigravity"),
        dict(type="mmdet.antigravity"),
        dict(type="subprocess.Popen"),
        dict(type=["os"]),
        dict(type="ResNet", _scope_="os"),
        dict(type="OptimWrapper", constructor="os.system"),
        dict(type="CameraMotionCompensation", warp_mode="print(1)"),
        dict(teacher_config="evil.py"),
    ],
)
def test_what_is_built_is_registered(part):
    with pytest.raises(InputError, match=r"wants .* to be built"):
        buildable.check({"model": {"type": "FPN", "part": [part]}}, "x.py")


@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.stem)
def test_stock_configs_build_what_is_registered(path):
    values, _ = reading._Reading().file(path)
    assert not list(buildable.foreign_names(values))
