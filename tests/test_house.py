"""The rule which room may import which, and what the project keeps out of its house."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "swin_dense"

HOUSE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")


def arrows(block: str) -> dict[str, set[str]]:
    """Read "room -> rooms it may import" from a table; a line without an arrow names several."""
    found: dict[str, set[str]] = {}
    for line in re.sub(r"\(.*?\)", "", block).replace("\n  ", "  ").split("\n"):
        rooms, arrow, others = line.partition("->")
        for room in rooms.split():
            found[room] = set(others.split()) if arrow else set()
    return found


PICTURE = HOUSE[1]
_TABLES = [block for block in HOUSE[3::2] if "->" in block]
# room -> rooms of ours that it may import; and the same within openmmlab
MAY_IMPORT, GLUE_MAY_IMPORT = map(arrows, _TABLES[:2])
del MAY_IMPORT["cli"]  # everything below
EVERYTHING = set(MAY_IMPORT) | {"cli"}
GLUE = {"mmcv", "mmdet", "mmseg"}
NO_VERB = (
    r"(A|All|An|As|By|Each|Every|For|From|How|In|Its|No|Of|One|That|The|Those|What|Where|Whether|"
    r"Which)\b"
)
NAMELESS = {"utils", "util", "common", "core", "helper", "helpers", "misc"}


def imported(path: Path) -> set[str]:
    """Dotted names a file imports, at any depth, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(top: Path) -> list[Path]:
    return sorted(p for p in top.rglob("*.py") if ".venv" not in p.parts)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    room = room_of(path)
    if room == "__init__":  # the front door; see test_the_front_door_is_light
        return
    allowed = EVERYTHING if room == "cli" else MAY_IMPORT[room] | {room}
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("swin_dense.")}
    assert ours <= allowed, f"{room} may not import {sorted(ours - allowed)}"


@pytest.mark.parametrize(
    "path", files(PACKAGE / "openmmlab"), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_arrows_within_the_glue_point_down(path):
    glue = "swin_dense.openmmlab."
    ours = {n.removeprefix(glue).split(".")[0] for n in imported(path) if n.startswith(glue)}
    if path.parent == PACKAGE / "openmmlab" and path.stem == "__init__":
        return  # imports all of them
    room = path.relative_to(PACKAGE / "openmmlab").parts[0].removesuffix(".py")
    assert ours <= GLUE_MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_room_knows_mmdet(path):
    roots = {name.split(".")[0] for name in imported(path)}
    if room_of(path) != "openmmlab":
        assert not roots & GLUE
    plain = {"ops", "mmcv_ops", "layers", "checkpoints", "datasets", "report", "errors", "task"}
    if room_of(path) in plain | {"config_files"}:
        assert "mmengine" not in roots


@pytest.mark.parametrize("path", files(PACKAGE / "checkpoints"), ids=lambda p: p.name)
def test_the_room_of_weights_names_no_architecture(path):
    """What is known of an architecture's weights stands beside it, in backbones/."""
    text = re.sub(r"(?i)swin_dense", "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"(?i)\w*(?:swin|convnext|resnet|\bvit\b)\w*", text)


def test_the_picture_shows_the_rooms():
    """Each room of swin_dense/ and of openmmlab/ in a line of its own, and no other."""
    shown = re.findall(r"^( {4}| {8})([\w.]+)/? ", PICTURE, flags=re.M)
    for indent, folder in (("    ", PACKAGE), (" " * 8, PACKAGE / "openmmlab")):
        there = {p.name for p in folder.iterdir() if p.name[0] not in "_." or p.is_file()}
        there = {name for name in there if name.endswith(".py") or (folder / name).is_dir()}
        there -= {"__init__.py"}
        assert {name for i, name in shown if i == indent} - {"__init__.py"} == there
    drawn = {name.removesuffix(".py") for i, name in shown if i == "    "} - {"__init__"}
    assert drawn == MAY_IMPORT.keys() | {"cli"}


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_docstrings_of_functions_begin_with_a_verb(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            said = ast.get_docstring(node) or ""
            assert not re.match(NO_VERB, said), f"{path}:{node.lineno}: {node.name}: {said}"


# They build or install the package, or its pages: there is nothing yet to import but one another.
BEFORE_THE_PACKAGE = {"compilers", "install", "make_site", "make_wheel", "try_wheel"}


def test_tools_call_the_commands_and_nothing_else():
    for path in [*files(ROOT / "tools"), *files(ROOT / "demo")]:
        if path.stem in BEFORE_THE_PACKAGE:
            roots = {name.split(".")[0] for name in imported(path)}
            assert not roots - sys.stdlib_module_names - BEFORE_THE_PACKAGE
            continue
        ours = {n for n in imported(path) if not n.startswith("sys")}
        assert all(name.startswith("swin_dense.cli.") for name in ours), path


OPTIONS = {
    node.value
    for path in files(PACKAGE / "cli")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and re.fullmatch(r"--[a-z][a-z-]+", str(node.value))
}


WHOLE_COMMANDS = {"checkpoints/files.py": {"--trust"}}  # told in full, whichever command runs


@pytest.mark.parametrize(
    "path",
    [p for p in files(PACKAGE) if room_of(p) != "cli"],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_only_the_commands_word_their_options(path):
    """Other rooms name a setting, `load_from`; `cli.command.worded` writes it as --load-from."""
    texts = [
        str(node.value)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    ]
    found = {word for text in texts for word in re.findall(r"--[a-z][a-z-]+", text)}
    assert not found & OPTIONS - WHOLE_COMMANDS.get(str(path.relative_to(PACKAGE)), set())


def test_no_room_is_named_after_nothing():
    for top in ("swin_dense", "configs", "tools", "demo", "tests"):
        found = [p for p in (ROOT / top).rglob("*") if p.stem in NAMELESS]
        assert not [p for p in found if p.suffix in ("", ".py", ".cpp")]


def test_every_tested_file_has_its_twin():
    """tests/ops/test_nms.py is about swin_dense/ops/nms.py; the CUDA sources have a harness."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = path.parent.relative_to(ROOT / "tests").parts
        if room and room[0] not in ("cli", "configs"):
            harness = path.with_name(path.stem.removeprefix("test_") + ".h")
            name = path.stem.removeprefix("test_").removesuffix("_cuda_on_cpu")
            twin = PACKAGE.joinpath(*room, f"{name}.py")
            assert twin.exists() or harness.exists(), f"{path} is about no file"


def test_configs_delete_nothing():
    for path in files(ROOT / "configs"):
        assert "_delete_" not in path.read_text(), path


def test_ops_need_torch_alone():
    code = (
        "import sys; import swin_dense.ops; glue = {'mmengine', 'mmcv', 'mmdet', 'mmseg'}; "
        "print([m for m in sys.modules if m.split('.')[0] in glue])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_front_door_is_light():
    """`import swin_dense` brings no package along; its names come when they are used."""
    code = (
        "import sys; before = set(sys.modules); import swin_dense; dir(swin_dense).index('load');"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(new - sys.stdlib_module_names);"
        "assert swin_dense.load.__module__ == 'swin_dense.openmmlab.engine.predictor'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "{'swin_dense'}"
