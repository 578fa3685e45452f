"""Limits have names that the environment raises, and the page lists all of them."""

import re

import pytest
from conftest import ROOT

from swin_dense.errors import InputError
from swin_dense.file_limits import IMAGE_PIXELS, LIMITS


def test_the_environment_raises_a_limit_by_its_name(monkeypatch):
    assert IMAGE_PIXELS.most == IMAGE_PIXELS.usual
    monkeypatch.setenv(IMAGE_PIXELS.variable, "4e8")
    assert IMAGE_PIXELS.most == 400_000_000


@pytest.mark.parametrize("given", ["many", "-1", "0", "nan", "inf", "1e999"])
def test_a_limit_that_is_no_number_is_told(monkeypatch, given):
    monkeypatch.setenv(IMAGE_PIXELS.variable, given)
    with pytest.raises(InputError, match=r"SWIN_DENSE_MOST_IMAGE_PIXELS=.*number above 0"):
        _ = IMAGE_PIXELS.most


@pytest.mark.parametrize("count", [100_000_001, 123_456_789_012, 999_999_999, 2 * 10**9])
def test_what_a_rule_advises_is_enough(monkeypatch, count):
    name, value = re.search(r"(\w+)=(\S+)\.$", IMAGE_PIXELS.rule(count)).groups()
    assert f"{count:,} pixels" in IMAGE_PIXELS.rule(count)
    monkeypatch.setenv(name, value)
    assert count <= IMAGE_PIXELS.most < 2 * count


def test_the_page_lists_each_limit_with_its_usual_value():
    page = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(SWIN_DENSE_MOST_\w+)` \| ([\d,]+) \|", page, flags=re.M)
    assert rows == [(limit.variable, f"{limit.usual:,}") for limit in LIMITS.values()]
