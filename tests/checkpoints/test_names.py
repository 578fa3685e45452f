"""Templates of names, read and written, and tensors cut into thirds."""

import pytest
import torch

from swin_dense.checkpoints import names
from swin_dense.checkpoints.names import Template


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("a.{stage}.{end}", "a.3.bias", {"stage": 3, "end": "bias"}),
        ("a.{stage}.{end}", "a.3.biased", None),
        ("a.{stage}.{end}", "a.x.bias", None),
        ("a.{stage}", "xa.3", None),
        ("a.b", "a_b", None),
        ("f.{2*stage+1}.{block}", "f.5.0", {"stage": 2, "block": 0}),
        ("f.{2*stage+1}.{block}", "f.4.0", None),
        ("l.{stage+1}", "l.0", None),
        ("l.{stage+1}", "l.12", {"stage": 11}),
        ("l.{stage-1}", "l.0", {"stage": 1}),
        ("head.{any}", "head.fc.0.weight", {"any": "fc.0.weight"}),
        ("head.{any}", "head.", None),
    ],
)
def test_reading(text, name, values):
    assert Template(text).read(name) == values
    if values is not None:
        assert Template(text).write(values) == name


def test_a_value_can_come_from_elsewhere():
    assert (
        Template("norm{last}.{end}").write({"last": 3, "end": "bias", "stage": 1}) == "norm3.bias"
    )


def test_tables_are_put_behind_words():
    table = names.under("x.", names.same("a", "b"), "y.")
    assert table == {"x.a": "y.a", "x.b": "y.b"}
    assert names.under("x.", {"a": "why"}) == {"x.a": "why"}


def test_the_first_row_that_fits_counts():
    table = {"a.{end}": 1, "a.{any}": 2}
    assert names.first(table, "a.bias") == ("a.{end}", {"end": "bias"})
    assert names.first(table, "a.scale") == ("a.{any}", {"any": "scale"})
    assert names.first(table, "b.bias") is None


def test_thirds_are_cut_and_joined():
    qkv, other = torch.arange(6.0).view(6, 1), torch.ones(4)
    pieces = names.split({"0.qkv": qkv, "other": other}, ["{stage}.qkv[q]", "other"])
    assert [pieces[f"0.qkv[{p}]"].flatten().tolist() for p in "qkv"] == [[0, 1], [2, 3], [4, 5]]
    joined = names.join(pieces)
    assert list(joined) == ["0.qkv", "other"]
    assert torch.equal(joined["0.qkv"], qkv)


def test_a_third_alone_stays_noticed():
    pieces = {"b[q]": torch.ones(2), "b[v]": torch.ones(2)}
    assert list(names.join(pieces)) == ["b[q]", "b[v]"]
    assert names.join(pieces, zeros="[k]")["b"].tolist() == [1, 1, 0, 0, 1, 1]


def test_what_has_no_thirds_is_not_cut():
    state = {"0.qkv": torch.ones(4), "1.qkv": torch.tensor(1.0)}
    assert names.split(state, ["{stage}.qkv[q]"]).keys() == state.keys()
