"""Words before names are peeled in any order; averages count only where nothing else is there."""

import itertools

import pytest

from swin_dense.checkpoints import wrappers

NAME = "stages.2.module.fc.weight"  # a word in the middle is a name like any other


@pytest.mark.parametrize(
    "words",
    [
        *itertools.permutations(["module", "_orig_mod", "model"]),
        ("student", "module"),
        ("module", "module"),
        ("_fsdp_wrapped_module", "timm_model"),
        (),
    ],
    ids=".".join,
)
def test_any_order(words):
    assert wrappers.peel([".".join([*words, NAME])]).names.popitem()[1] == NAME


@pytest.mark.parametrize(
    "before", ["backbone.", "model.backbone.", "backbone.module.", "backbone._orig_mod.backbone."]
)
def test_the_backbone_keeps_its_place(before):
    peeled = wrappers.peel([before + NAME, "module.neck._orig_mod.fc.bias"])
    assert list(peeled.names.values()) == ["backbone." + NAME, "neck.fc.bias"]


@pytest.mark.parametrize("name", ["model", "module.ema", "backbone"])
def test_a_name_of_wrappers_alone_keeps_its_last_word(name):
    (peeled,) = wrappers.peel([name]).names.values()
    assert peeled.split(".")[-1] == name.split(".")[-1]


def test_an_average_gives_way_to_the_weights():
    names = ["student.a", "teacher.a", "teacher.b"]
    peeled = wrappers.peel(names)
    assert peeled.names == {"student.a": "a"}
    assert peeled.dropped == dict.fromkeys(names[1:], wrappers.BESIDE)
    assert peeled.average == ""


@pytest.mark.parametrize("word", ["teacher", "ema", "model_ema"])
def test_an_average_alone_is_read_and_told(word):
    peeled = wrappers.peel([f"module.{word}.backbone.a", f"{word}.neck.b", "steps"])
    assert list(peeled.names.values()) == ["backbone.a", "neck.b", "steps"]
    assert (peeled.average, peeled.dropped) == (word, {})


def test_two_names_do_not_become_one():
    names = ["model.a", "student.a", "model.b"]
    assert wrappers.peel(names).names == {"model.a": "model.a", "student.a": "student.a"} | {
        "model.b": "b"
    }
    assert wrappers.without_machinery({"module.a": 1, "a": 2}) == {"module.a": 1, "a": 2}


def test_machinery_leaves_the_words_of_the_model():
    names = {"module._orig_mod.model.a": 1, "backbone._fsdp_wrapped_module.b._orig_mod.c": 2}
    assert wrappers.without_machinery(names) == {"model.a": 1, "backbone.b.c": 2}
