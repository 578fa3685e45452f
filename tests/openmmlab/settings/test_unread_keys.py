"""Misspelt keys that no class declares: letters changed by chance, and configs without mistakes."""

import random
import string
from pathlib import Path

import mmdet
import mmseg
import pytest
from conftest import ROOT
from mmengine.config import Config

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError, one_edit
from swin_dense.openmmlab.settings import channels, config, reading, unread_keys

NAMES = [
    *("mask_rcnn_swin_t", "dino_swin_l", "mask2former_swin_t_panoptic", "upernet_swin_t"),
    *("htc_swin_v2_b", "reppoints_v2_swin_t", "sparse_rcnn_swin_t", "cascade_mask_rcnn_vitdet_b"),
]
THEIRS = [
    path
    for library in (mmdet, mmseg)
    for path in sorted((Path(library.__file__).parent / ".mim/configs").rglob("*.py"))
    if "_base_" not in path.parts
]
# What their authors state and nothing reads, each looked for in the source of its library. Their
# configs load all the same, and what is not read is said.
DEAD = {
    "debug",  # of training, as mmdet 2 had it
    "bbox_min_size",  # of a filter, where the data set is no XMLDataset
    *("filter_empty_gt", "min_size"),  # of CrowdHuman's filter; it has none
    "sub_data_root",  # of VOC as COCO's files
    "assigner",  # of FCOS, which takes points by their place
    "img_encoder",  # of SAN's rates: image_encoder is meant
    "wd_mult",  # of DNLNet's rates: decay_mult is meant
}


def misspelt(word, chance):
    """One letter left out, doubled, replaced, or exchanged with the next."""
    i = chance.randrange(len(word))
    return chance.choice(
        [
            word[:i] + word[i + 1 :],
            word[: i + 1] + word[i:],
            word[:i] + chance.choice(string.ascii_lowercase + "_") + word[i + 1 :],
            word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :],
        ]
    )


def places(node, place=()):
    """(the dict, its key, how deep) of each key in a config."""
    if isinstance(node, dict):
        for key in list(node):
            yield node, key, len(place)
            yield from places(node[key], (*place, key))
    elif isinstance(node, list | tuple):
        for part in node:
            yield from places(part, (*place, "-"))


def with_a_typo(seed, tmp_path):
    """(a config with one misspelt key, which stands for the right one or beside it; that key)."""
    chance = random.Random(seed)
    values = reading.read(ROOT / f"configs/{chance.choice(NAMES)}.py")._cfg_dict.to_dict()
    for name in ("train_pipeline", "test_pipeline"):  # of which the loaders have copies
        values.pop(name, None)
    every = list(places(values))
    depth = chance.choice(sorted({depth for *_, depth in every}))
    node, key, _ = chance.choice([place for place in every if place[2] == depth])
    wrong = misspelt(key, chance)
    while wrong in {"", *node}:
        wrong = misspelt(key, chance)
    items = [(wrong if k == key else k, v) for k, v in node.items()]
    if chance.random() < 0.5:
        items.append((key, node[key]))
    node.clear()
    node.update(items)
    path = tmp_path / "typo.py"
    path.write_text("".join(f"{k} = {v!r}\n" for k, v in values.items() if k.isidentifier()))
    return path, wrong


SEEDS = [pytest.param(i, marks=[pytest.mark.slow] if i >= 10 else []) for i in range(100)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_typo_is_refused(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(channels, "fill", lambda _: [])  # which builds the backbone
    path, wrong = with_a_typo(seed, tmp_path)
    with pytest.raises(InputError) as refused:
        config.load(path)
    assert wrong in str(refused.value) or "lacks" in str(refused.value)


@pytest.mark.parametrize("path", random.Random(17).sample(THEIRS, 15), ids=lambda path: path.stem)
def test_a_config_of_openmmlab_has_no_typo(path):
    assert_right(path)


@pytest.mark.slow
def test_no_config_has_a_typo():
    for path in [*THEIRS, *(ROOT / "configs").glob("*.py")]:
        assert_right(path)


def assert_right(path):
    ours = ROOT / "configs" in path.parents
    try:
        found = reading.read(path)
    except InputError:
        assert not ours
        return  # a program, or a base of a library that is not here
    if "default_scope" not in found:
        found.default_scope = "mmseg" if "mmseg" in path.parts else "mmdet"
    wrong, unread = unread_keys.find(found)
    assert wrong == []
    assert {place.rpartition(".")[2] for place in unread} <= (set() if ours else DEAD)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        *(("type", word, True) for word in ("tpe", "typ", "ype", "tyype", "typo", "tyep", "ytpe")),
        *(("type", word, False) for word in ("type", "", "tpey", "types_", "ty", "epyt", "tope_")),
        *(("nms", word, True) for word in ("nm", "nmss", "_nms", "nsm")),
        ("a", "", True),
        ("", "", False),
    ],
)
def test_one_edit(one, other, expected):
    assert one_edit(one, other) == one_edit(other, one) == expected


def complaint(**sections):
    """What is found in a config: (sentences, places)."""
    model = dict(type="RetinaNet", bbox_head=dict(type="RetinaHead"), test_cfg={}, train_cfg={})
    sections = {name: dict(part) for name, part in sections.items()}
    model |= sections.pop("model", {})
    return unread_keys.find(Config(dict(default_scope="mmdet", model=model, **sections)))


def test_an_unread_key_that_is_like_none_is_said():
    wrong, unread = complaint(model=dict(test_cfg=dict(score_th=0.1, zebra=1, nms_pre=2)))
    assert wrong == ["model.test_cfg: nothing reads 'score_th'. Did you mean 'score_thr'?"]
    assert unread == ["model.test_cfg.zebra"]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (dict(norm_cfg=dict(type="GN", num_group=2)), "norm_cfg: nothing reads 'num_group'"),
        (dict(init_cfg=dict(type="Xavier", gian=2)), "init_cfg: nothing reads 'gian'. Did you"),
        (dict(anchor_generator=dict(tpye="A")), "nothing reads 'tpye'. Did you mean 'type'?"),
        (dict(nms_=dict(type="nms", iou_threshold=1)), "nothing reads 'nms_'. Did you mean 'nms'"),
    ],
)
def test_keys_of_what_others_complete(part, says):
    wrong, _ = complaint(model=dict(test_cfg=part))
    assert len(wrong) == 1
    assert says in wrong[0]


def test_options_of_parameters():
    keys = {"backbonee": dict(lr_mul=0.1), "bbox_head.norm": {}, "stages.11.my_own": {}}
    options = dict(custom_keys=keys, norm_decay_mul=0.0)
    wrong, unread = complaint(
        optim_wrapper=dict(type="OptimWrapper", paramwise_cfg=options, clip_grad=dict(max_norm=1))
    )
    place = "optim_wrapper.paramwise_cfg"
    assert wrong == [
        f"{place}: nothing reads 'norm_decay_mul'. Did you mean 'norm_decay_mult'?",
        f"{place}.custom_keys: nothing reads 'backbonee'. Did you mean 'backbone'?",
        f"{place}.custom_keys.backbonee: nothing reads 'lr_mul'. Did you mean 'lr_mult'?",
    ]
    assert unread == []


OWN = """
from mmdet.models import RetinaHead
from mmdet.registry import MODELS

@MODELS.register_module()
class HeadThatReadsMore(RetinaHead):
    def loss_by_feat(self, *args, **kwargs):
        return self.train_cfg["score_thrr"] * self.train_cfg.get("mn_size")
"""


def test_a_module_of_the_user_s_reads_keys_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "heads_that_read_more.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(
        f"_base_ = '{ROOT}/configs/retinanet_swin_t.py'\n"
        "custom_imports = dict(imports=['heads_that_read_more'], allow_failed_imports=False)\n"
        "model = dict(bbox_head=dict(type='HeadThatReadsMore'),\n"
        "    train_cfg=dict(score_thrr=0.5, mn_size=2))\n"
    )
    said = []
    monkeypatch.setattr(channels, "fill", lambda _: [])
    found = config.load(path, say=said.append, trust_config=True)
    assert found.model.train_cfg.score_thrr == 0.5
    assert said == []
    with pytest.raises(InputError, match=r"'mn_siz'. Did you mean 'mn_size'"):
        config.load(path, {"model.train_cfg.mn_siz": 2}, trust_config=True)
    found.model.bbox_head.type = "RetinaHead"
    assert len(unread_keys.find(found)[0]) == 2


def test_where_a_class_is_unknown_nothing_is_refused():
    """It may read what no other does; that it is unknown is said by signatures."""
    wrong, unread = complaint(model=dict(bbox_head=dict(type="NotThere"), test_cfg=dict(zebra=1)))
    assert wrong == unread == []
