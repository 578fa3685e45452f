"""README and docs: links lead somewhere, and commands are ones that there are."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from swin_dense.cli import command
from swin_dense.cli import main as commands

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\$ )?python ((?:tools|demo)/\w+\.py.*)$", re.MULTILINE)


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
        for line in COMMAND.findall(page.read_text())
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
    folder = "demo" if name.endswith("demo") else "tools"
    assert (ROOT / folder / f"{name}.py").exists()
    stand_for = {"N": "3", "FORMAT": "coco"}
    words = [stand_for.get(word, word) for word in words]
    with pytest.raises(ReadError):
        commands.module(name).main(words)
    assert not capsys.readouterr().err
