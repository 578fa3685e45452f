"""The commands, their one-line descriptions, and what a misspelt name or option gets."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import swin_dense
from swin_dense.cli import main

# They build or install the package, or its pages, and are no commands of it.
BUILDERS = {"compilers", "install", "make_site", "make_wheel", "try_wheel"}
TOOLS = sorted([*(ROOT / "demo").glob("*.py"), *(ROOT / "tools").glob("*.py")])
TOOLS = [path for path in TOOLS if path.stem not in BUILDERS]


def refused(capsys, *arguments):
    """Run a command that must be refused before it begins; the one line it says."""
    try:
        status = main.main(arguments)
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_each_tool_is_a_command():
    tools = {path.stem.replace("_", "-") for path in TOOLS}
    assert tools == set(main.COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_every_command_is_listed_with_its_first_line(arguments, capsys):
    assert main.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for path in TOOLS:
        command = ROOT / "swin_dense/cli" / path.name
        first = ast.get_docstring(ast.parse(command.read_text())).splitlines()[0]
        (line,) = [line for line in lines if first in line]
        assert line.split()[0] == path.stem.replace("_", "-")


def test_the_version_is_the_package_s(capsys):
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"swin-dense {swin_dense.__version__}\n"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("trian", "error: there is no command trian. Did you mean 'train'?"),
        ("image_demo", "error: there is no command image_demo. Did you mean 'image-demo'?"),
        ("--verison", "error: there is no option --verison. Did you mean '--version'?"),
        ("x", "error: there is no command x. See swin-dense --help."),
    ],
)
def test_a_misspelt_command_gets_the_nearest(word, says, capsys):
    assert refused(capsys, word).startswith(says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        # argparse would take the 6 for the config, and call the rest too much.
        ("train --max-iter 6 x.py", "no option --max-iter. Did you mean '--max-iters'?"),
        ("train x.py --loadfrom w.pth", "no option --loadfrom. Did you mean '--load-from'?"),
        ("train x.py --amp=bf16 -seed=3", "no option -seed. Did you mean '--seed'?"),
        ("train x.py --xyz", "no option --xyz. See swin-dense train --help."),
        ("test --work_dir=w x.py", "no option --work_dir. Did you mean '--work-dir'?"),
        ("image-demo --score-threshold 0.5", "Did you mean '--score-thr'?"),
        ("convert a b --forced", "Did you mean '--force'?"),
        ("model-info x.py --shapes 64,32", "Did you mean '--shape'?"),
        ("model-zoo --chek", "Did you mean '--check'?"),
        ("benchmark --second 3", "Did you mean '--seconds'?"),
        ("quickstart --hlep", "Did you mean '--help'?"),
    ],
)
def test_a_misspelt_option_gets_the_nearest_of_its_command(words, says, capsys):
    line = refused(capsys, *words.split())
    assert line.startswith("error: there is no option -")
    assert says in line


def test_what_is_no_option_is_left_to_its_meaning(capsys):
    assert "a whole number from 0, not '-3'" in refused(capsys, "train", "x.py", "--seed", "-3")
    assert "unrecognized arguments: " in refused(capsys, "quickstart", "--", "--seed")
    assert "unrecognized arguments: -a b" in refused(capsys, "train", "x.py", "-a b")


@pytest.mark.parametrize("path", TOOLS)
def test_help_comes_before_anything_heavy(path):
    """And before libraries that print, warn or fail: what is imported, not how long it takes."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(path)!r}, '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "from swin_dense.cli import main; main.main([])\n"
        "ours = {'swin_dense', *sys.stdlib_module_names}\n"
        "print({m.split('.')[0] for m in sys.modules} - ours - {'sitecustomize'} - before)\n"
    )
    # What the interpreter itself imports at its start is not ours: .pth files, an editable install.
    code = "import sys; before = {m.split('.')[0] for m in sys.modules}\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {path.relative_to(ROOT)}")
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(("asked", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_decides(asked, found):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if asked:
        environment["OMP_WAIT_POLICY"] = asked
    code = (
        "import swin_dense.cli.train, os, sys; "
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout.split() == [found, "False"], done.stderr
