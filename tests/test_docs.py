"""README and docs: links lead somewhere, and commands are ones that there are."""

import re
import shlex
import subprocess

import pytest
from conftest import ROOT
from documented import FENCE, PAGES, commands, inline_commands, named, of_ours
from torch.distributed.run import get_args_parser

from swin_dense.cli import command, options
from swin_dense.cli import main as all_commands

LINK = re.compile(r"\]\(([^)\s]+)\)")
TORCHRUN = re.compile(r"^(?:srun )?torchrun (.*) tools/\w+\.py", re.MULTILINE)
SCRIPT = re.compile(r"^```bash\n(#!.*?)^```", re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return what links to the headings of a page end in, as GitHub makes it."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links():
    return [
        pytest.param(page, link, id=f"{named(page)}: {link}")
        for page in PAGES
        for link in dict.fromkeys(LINK.findall(FENCE.sub("", page.read_text())))
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
    """Return the commands of ours, what may be left out and the first of a choice among them."""
    found = [
        pytest.param(name, shlex.split(words), id=f"{named(page)}: {line[:70]}")
        for page in PAGES
        for line in dict.fromkeys([*commands(page), *inline_commands(page)])
        if (ours := of_ours(re.sub(r"[][]", "", re.sub(r"\{(\w+),.*?\}", r"\1", line))))
        for name, words in [ours]
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
    with pytest.raises((ReadError, SystemExit)) as ended:
        all_commands.module(name).main(words)
    assert ended.type is ReadError or not ended.value.code  # some print and end
    assert not capsys.readouterr().err


def joined(page):
    """Return a page, commands over several lines in one."""
    return page.read_text().replace("\\\n", " ")


def launched():
    """Return what torchrun is told in blocks of code, variables of a shell as 2."""
    found = [line for page in PAGES for line in TORCHRUN.findall(joined(page))]
    assert len(found) > 3
    return [re.sub(r"\$\w+", "2", line) for line in found]


@pytest.mark.parametrize("line", launched())
def test_torchrun_has_the_options(line):
    asked = get_args_parser().parse_args([*shlex.split(line), "tools/train.py"])
    assert asked.training_script == "tools/train.py"
    if "--nnodes" in line:
        assert asked.nnodes == "2"
        assert asked.rdzv_endpoint or asked.master_addr == "first"


def test_scripts_are_read_by_a_shell(tmp_path):
    scripts = [script for page in PAGES for script in SCRIPT.findall(page.read_text())]
    assert len(scripts) == 2
    for script in scripts:
        (tmp_path / "script.sh").write_text(script)
        subprocess.run(["bash", "-n", tmp_path / "script.sh"], check=True)
        assert "srun" in script
