"""The rule which room may import which, and what the project keeps out of its house."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "swin_dense"

# room -> rooms of ours it may import, and libraries only it may import
MAY_IMPORT = {
    "errors": set(),
    "registry": set(),
    "task": set(),
    "config_files": {"errors"},
    "ops": set(),
    "checkpoints": {"errors"},
    "datasets": {"errors"},
    "mmcv_ops": {"ops"},
    "mmcv_stand_in": {"errors"},  # and mmcv_ops, by its name, when mmcv asks for its ops
    "layers": {"ops", "errors"},
    "backbones": {"layers", "ops", "checkpoints", "registry", "errors"},
    "report": {"datasets", "task", "errors"},
    "openmmlab": {"mmcv_stand_in", "mmcv_ops", "layers", "backbones", "ops", "checkpoints"}
    | {"datasets", "report", "task", "config_files", "registry", "errors"},
    "benchmarks": {"openmmlab", "backbones", "ops", "errors"},
}
# within openmmlab: room -> rooms of it that it may import
GLUE_MAY_IMPORT = {
    "models": set(),
    "peers": set(),
    "data": set(),
    "settings": {"data"},
    "engine": {"settings", "data"},
    "install": {"engine"},
}
EVERYTHING = set(MAY_IMPORT) | {"cli"}
GLUE = {"mmcv", "mmdet", "mmseg"}
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


def test_tools_call_the_commands_and_nothing_else():
    for path in [*files(ROOT / "tools"), *files(ROOT / "demo")]:
        if path.name == "install.py":  # runs before anything is installed
            assert not any(n.split(".")[0] not in sys.stdlib_module_names for n in imported(path))
            continue
        ours = {n for n in imported(path) if not n.startswith("sys")}
        assert all(name.startswith("swin_dense.cli.") for name in ours), path


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
