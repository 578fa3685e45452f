"""README and docs: links lead somewhere, and commands are ones that there are."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from torch.distributed.run import get_args_parser

from swin_dense.cli import command, options
from swin_dense.cli import main as commands

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
STARTED = r"(?:python|(?:srun )?torchrun.*|srun python)"
COMMAND = re.compile(rf"^(?:\$ )?{STARTED} ((?:tools|demo)/\w+\.py.*)$", re.MULTILINE)
TORCHRUN = re.compile(r"^(?:srun )?torchrun (.*) tools/\w+\.py", re.MULTILINE)
SCRIPT = re.compile(r"^```bash\n(#!.*?)^```", re.MULTILINE | re.DOTALL)


def text(page):
    """Return a page, commands over several lines joined."""
    return page.read_text().replace("\\\n", " ")


def named(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """Return what links to the headings of a page end in, as GitHub makes it."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links():
    return [
        pytest.param(page, link, id=f"{named(page)}: {link}")
        for page in PAGES
        for link in dict.fromkeys(LINK.findall(page.read_text()))
        if "://" not in link
    ]


@pytest.mark.parametrize(("page", "link"), links())
def test_a_link_leads_somewhere(page, link):
    place, _, anchor = link.partition("#")
    target = page.parent / place if place else page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)


def shown():
    """Return the commands in blocks of code, what may be left out among them."""
    found = [
        pytest.param(Path(words[0]).stem, words[1:], id=f"{named(page)}: {line.strip()[:70]}")
        for page in PAGES
        for line in COMMAND.findall(text(page))
        if (words := shlex.split(re.sub(r"[][]", "", line), comments=True))
    ]
    assert len(found) > 15
    return found


class ReadError(Exception):
    """The command line was read; what it asks for is not done here."""


@pytest.mark.parametrize(("name", "words"), shown())
def test_a_command_is_one_that_there_is(name, words, monkeypatch, capsys):
    def read():
        raise ReadError

    monkeypatch.setattr(command, "require_home", read)  # comes behind the reading of arguments
    if "--launcher" in words:
        for variable in options.LAUNCHERS[words[words.index("--launcher") + 1]][1]:
            monkeypatch.setenv(variable, "0")
    folder = "demo" if name.endswith("demo") else "tools"
    assert (ROOT / folder / f"{name}.py").exists()
    stand_for = {"N": "3", "FORMAT": "coco"}
    words = [stand_for.get(word, word) for word in words]
    with pytest.raises(ReadError):
        commands.module(name).main(words)
    assert not capsys.readouterr().err


def launched():
    """Return what torchrun is told in blocks of code, variables of a shell as 2."""
    found = [line for page in PAGES for line in TORCHRUN.findall(text(page))]
    assert len(found) > 3
    return [re.sub(r"\$\w+", "2", line) for line in found]


@pytest.mark.parametrize("line", launched())
def test_torchrun_has_the_options(line):
    asked = get_args_parser().parse_args([*shlex.split(line), "tools/train.py"])
    assert asked.training_script == "tools/train.py"
    assert asked.nnodes == "2"
    assert asked.rdzv_endpoint or asked.master_addr == "first"


def test_scripts_are_read_by_a_shell(tmp_path):
    scripts = [script for page in PAGES for script in SCRIPT.findall(page.read_text())]
    assert len(scripts) == 2
    for script in scripts:
        (tmp_path / "script.sh").write_text(script)
        subprocess.run(["bash", "-n", tmp_path / "script.sh"], check=True)
        assert "srun" in script
