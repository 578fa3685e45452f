"""Words of source modules, against modules written for it."""

import importlib
import sys

import pytest
import torch
from mmcv.cnn.bricks import transformer
from mmdet.models.dense_heads import RPNHead

from swin_dense.openmmlab.settings import vocabulary

SOURCE = '''
"""Prose of a module is no word of it."""
import vocabulary_near
from torch import nn
LIMIT = {"taken_by_dict": 1}

def head(cfg, an_argument, *, another_argument):
    local_name = cfg.an_attribute
    cfg.get("a_text", default_of=3)
    return cfg["a_key"], [cfg[k] for k in ("in_a_tuple", "not a name")], local_name
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "vocabulary_example.py").write_text(SOURCE)
    (tmp_path / "vocabulary_near.py").write_text("near = 'a_word_of_the_other'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("vocabulary_example")
    for name in ("vocabulary_example", "vocabulary_near"):
        sys.modules.pop(name, None)


def test_words_of_a_module_and_of_the_one_it_imports(module):
    found = vocabulary.words([module.__name__])
    read = {"an_argument", "another_argument", "an_attribute", "a_text", "a_key", "in_a_tuple"}
    assert read | {"taken_by_dict", "default_of", "a_word_of_the_other"} <= found
    assert not {"Prose", "prose", "not a name", "local_name", "Conv2d", "k"} & found


def test_a_head_has_the_words_of_its_parents_and_of_the_ops_it_calls():
    modules = vocabulary.modules_of(RPNHead)
    assert {RPNHead.__module__, "mmdet.models.dense_heads.anchor_head"} <= modules
    assert not [name for name in modules if name.startswith("torch")]
    assert {"allowed_border", "nms_pre", "iou_threshold"} <= vocabulary.words(modules)
    assert vocabulary.modules_of(torch.nn.Conv2d) == set()
    assert vocabulary.modules_of(transformer.build_attention) == {transformer.__name__}


def test_what_has_no_source_may_read_anything(module):
    assert vocabulary.words(["built_in_memory"]) is None
    assert vocabulary.words([]) == frozenset()
