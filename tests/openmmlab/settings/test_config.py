"""Mistakes in a config, each found before anything is built, each with a hint."""

import copy

import pytest
import torch
from conftest import ROOT
from mmengine.registry import DefaultScope

import swin_dense.openmmlab
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.settings import config
from swin_dense.registry import HOOKS, MODELS

GOOD = 'default_scope = "mmdet"\nmodel = dict(type="MaskRCNN", test_cfg=dict(on=True))\n'


def write(folder, text):
    path = folder / "experiment.py"
    path.write_text(text)
    return path


def test_plain_variables_are_allowed(tmp_path):
    assert config.load(write(tmp_path, GOOD + "my_batch = 4\n")).my_batch == 4


def test_names_of_values_in_a_section_are_allowed(tmp_path):
    """As OpenMMLab's own configs leave them; what one of their other tools reads, too."""
    text = """
default_scope = "mmdet"
data_root = "data/coco/"
norm_cfg = dict(type="SyncBN", requires_grad=True)
optimizer = dict(type="SGD", lr=0.01)
model = dict(type="MaskRCNN", neck=[dict(type="FPN", norm_cfg=norm_cfg)])
train_dataloader = dict(dataset=dict(data_root=data_root))
optim_wrapper = dict(type="OptimWrapper", optimizer=optimizer)
tta_model = dict(type="DetTTAModel")
"""
    assert config.load(write(tmp_path, text)).data_root == "data/coco/"
    unread = text.replace("optimizer=optimizer", 'optimizer=dict(type="AdamW", lr=1e-4)')
    with pytest.raises(InputError, match=r"'optimizer' .* Did you mean 'optim_wrapper'"):
        config.load(write(tmp_path, unread))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "optim_wraper = dict(lr=1)\n", r"'optim_wraper' .* Did you mean 'optim_wrapper'\?"),
        (GOOD + "train_dataloder = dict()\n", "Did you mean 'train_dataloader'"),
        (GOOD + "load_form = 'x.pth'\n", "Did you mean 'load_from'"),
        (GOOD + "find_unused_parameter = True\n", "Did you mean 'find_unused_parameters'"),
        (GOOD + "default_scop = 'MaskRCNN'\n", "Did you mean 'default_scope'"),  # a value of model
        (GOOD + "data_root = 'data/mine'\n", "nothing reads the section 'data_root'"),
        (GOOD + "something_else = dict(a=1)\n", "nothing reads the section 'something_else'"),
        ('default_scope = "mmdet"\n', "lacks model"),
        (GOOD + "x = (1,\n", r"line 3: "),
        (GOOD + "x = undefined_name\n", "NameError: name 'undefined_name' is not defined"),
        ('_base_ = ["nowhere.py"]\n' + GOOD, "nowhere.py"),
        (GOOD + "auto_scale_lr = dict(enable=True)\n", r"base_batch_size .* not None\. As in"),
        (GOOD + "auto_scale_lr = dict(base_batch_size=-16)\n", "a whole number from 1, not -16"),
        (GOOD + "auto_scale_lr = dict(base_batch_size='16')\n", "from 1, not '16'"),
        (GOOD + "auto_scale_lr = 16\n", "a whole number from 1, not None"),
        (GOOD + "optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.9))\n", "this is None"),
        (GOOD + "optim_wrapper = dict(type='OptimWrapper')\n", r"This has type\. As in"),
        (
            GOOD + "optim_wrapper = dict(backbone=dict(optimizer=dict(type='SGD')))\n",
            r"several in one run are not supported\. This has backbone",
        ),
        (
            '_base_ = ["%s"]\nmodel = dict(backbone=dict(type="ResNet", depth=51))'
            % (ROOT / "configs/_base_/retinanet.py"),
            "ResNet cannot be built: 'invalid depth 51",
        ),
        ('_base_ = ["%s"]\n' % (ROOT / "configs/_base_/retinanet.py"), "what to build by its type"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        config.load(write(tmp_path, text))


def test_a_missing_config_points_to_its_neighbour(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(MissingInputError, match=r"Did you mean 'experiment.py'"):
        config.load(tmp_path / "experimnet.py")


OPTIONS = GOOD + (
    "train_dataloader = dict(batch_size=2, dataset=dict(pipeline=[dict(type='A'), dict(b=1)]))\n"
    "optim_wrapper = dict(optimizer=dict(lr=1.0))\n"
)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (
            "optim_wrapper.optimiser.lr",
            "optim_wrapper has no 'optimiser'. Did you mean 'optimizer'",
        ),
        ("optim_wraper.optimizer.lr", "the config has no 'optim_wraper'"),
        ("train_dataloader.batchsize", "Did you mean 'batch_size'"),
        ("train_dataloader.dataset.pipeline.2.b", "is a list of 2, '2' is not a place"),
        ("train_dataloader.dataset.pipeline.x.b", "'x' is not a place"),
        ("optim_wrapper.optimizer.lr.deeper.still", "nothing below it"),
        ("unheard_of", "the config has no 'unheard_of'"),
    ],
)
def test_an_option_that_leads_nowhere(tmp_path, key, says):
    with pytest.raises(InputError, match=says):
        config.load(write(tmp_path, OPTIONS), {key: 3})


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("optim_wrapper.optimizer.lr", lambda c: c.optim_wrapper.optimizer.lr),
        ("optim_wrapper.clip_grad", lambda c: c.optim_wrapper.clip_grad),
        (
            "train_dataloader.dataset.pipeline.1.b",
            lambda c: c.train_dataloader.dataset.pipeline[1].b,
        ),
        ("load_from", lambda c: c.load_from),
    ],
)
def test_an_option_arrives(tmp_path, key, read):
    assert read(config.load(write(tmp_path, OPTIONS), {key: 3})) == 3


def test_a_misspelt_argument_names_the_class_and_the_nearest():
    says = r"Swin takes no argument 'embed_dims'\. Did you mean 'embed_dim'\? It takes: embed_dim,"
    with pytest.raises(InputError, match=says), config.building():
        MODELS.build(dict(type="swin_dense.Swin", embed_dims=96))


def test_a_misspelt_argument_deep_in_a_model_names_the_inner_class():
    DefaultScope.get_instance("test_config", scope_name="mmdet")
    model = dict(
        type="MaskRCNN",
        backbone=dict(type="swin_dense.Swin", depht=(2, 2, 2, 2)),
        **dict.fromkeys(("rpn_head", "roi_head", "train_cfg", "test_cfg")),
    )
    with pytest.raises(InputError, match="Swin takes no argument 'depht'"), config.building():
        MODELS.build(model)


def test_a_missing_argument_is_named():
    with pytest.raises(InputError, match=r"MaskRCNN lacks .*'roi_head'"), config.building():
        MODELS.build(dict(type="mmdet.MaskRCNN", backbone=dict(type="swin_dense.Swin")))


def test_an_unknown_type_points_to_a_registered_one():
    with pytest.raises(InputError, match=r"'swin_dense.Swim' .*'swin_dense\.'"), config.building():
        MODELS.build(dict(type="swin_dense.Swim"))


def test_a_written_config_is_read_back_alike_without_yapf(tmp_path, monkeypatch):
    def slow(*_, **__):
        raise AssertionError("yapf was called")

    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", slow)
    read = config.load(ROOT / "configs/dino_swin_l.py")
    copy.deepcopy(read).dump(tmp_path / "written.py")
    assert config.load(tmp_path / "written.py").to_dict() == read.to_dict()


def test_too_small_an_image_for_the_queries_says_what_to_change():
    says = r"at least model\.num_queries places: larger images \(--image-scale\) or fewer"
    with pytest.raises(InputError, match=says), config.building():
        torch.zeros(2, 7).topk(8, dim=1)


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="ours"), config.building():
        raise RuntimeError("ours")
    with pytest.raises(TypeError, match="ours"), config.building():
        raise TypeError("ours")
    with pytest.raises(KeyError, match="ours"), config.building():
        raise KeyError("ours")


def test_importing_the_room_registers_what_configs_name():
    assert swin_dense.openmmlab
    assert {"Progress", "FiniteLoss", "HostMemory", "PlainCheckpoint"} <= set(HOOKS.module_dict)
