"""Mistakes in a config, each found before anything is built, each with a hint."""

import copy

import pytest
from conftest import ROOT

import swin_dense.openmmlab
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.settings import config
from swin_dense.registry import HOOKS

GOOD = (
    'default_scope = "mmdet"\n'
    'model = dict.fromkeys(("rpn_head", "roi_head", "train_cfg"))\n'
    'model.update(backbone=dict(type="swin_dense.Swin", arch="nano"))\n'
    'model.update(type="MaskRCNN", test_cfg=dict(on=True))\n'
)


def write(folder, text):
    path = folder / "experiment.py"
    path.write_text(text)
    return path


def test_plain_variables_are_allowed(tmp_path):
    config.load(write(tmp_path, GOOD + "val_pipeline = [dict(a=1)]\nval_pipeline2 = [dict(a=1)]\n"))
    assert config.load(write(tmp_path, GOOD + "my_batch = 4\n")).my_batch == 4


def test_names_of_values_in_a_section_are_allowed(tmp_path):
    """As OpenMMLab's own configs leave them; what one of their other tools reads, too."""
    text = """
default_scope = "mmdet"
data_root = "data/coco/"
norm_cfg = dict(type="SyncBN", requires_grad=True)
optimizer = dict(type="SGD", lr=0.01)
fpn = dict(type="FPN", out_channels=8, num_outs=4, norm_cfg=norm_cfg)
model = dict(type="FasterRCNN", neck=[fpn], backbone=dict(type="swin_dense.Swin", arch="nano"))
model.update(dict.fromkeys(("rpn_head", "roi_head", "train_cfg", "test_cfg")))
del fpn
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
        (GOOD + "val_evaluato = None\n", "Did you mean 'val_evaluator'"),  # a value of model
        (GOOD + "models = 3\n", "Did you mean 'model'"),
        (GOOD + "train_pipelien = [dict(a=1)]\n", "Did you mean 'train_pipeline'"),
        (GOOD + "env_cfg = dict(dist_cfg=dict(backen='gloo'))\n", "Did you mean 'backend'"),
        (
            GOOD + "default_hooks = dict(checkpont=dict(type='CheckpointHook'))\n",
            "would be a hook beside default_hooks.checkpoint. Did you mean 'checkpoint'",
        ),
        (GOOD + "default_scop = 'MaskRCNN'\n", "Did you mean 'default_scope'"),  # a value of model
        (GOOD + "data_root = 'data/mine'\n", "nothing reads the section 'data_root'"),
        (GOOD + "something_else = dict(a=1)\n", "nothing reads the section 'something_else'"),
        ('default_scope = "mmdet"\n', "lacks model"),
        (GOOD + "x = (1,\n", r"line 5: "),
        (GOOD + "x = undefined_name\n", "line 5: name 'undefined_name' is not defined"),
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
    with pytest.raises(MissingInputError, match=r"Did you mean '.*experiment.py'"):
        config.load(tmp_path / "experimnet.py")


OPTIONS = GOOD + (
    "train_dataloader = dict(batch_size=2)\n"
    "train_dataloader['dataset'] = dict(pipeline=[dict(type='PackDetInputs'), dict(b=1)])\n"
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


def test_what_was_stated_otherwise_is_said(tmp_path):
    base = ROOT / "configs/mask_rcnn_swin_nano.py"
    text = f'_base_ = ["{base}"]\nmodel = dict(neck=dict(in_channels=[7, 14, 28, 56]))\n'
    said = []
    read = config.load(write(tmp_path, text), say=said.append)
    assert read.model.neck.in_channels == [24, 48, 96, 192]
    assert said == [
        "model.neck.in_channels: [7, 14, 28, 56] -> [24, 48, 96, 192] (follows the backbone)"
    ]


def test_a_written_config_is_read_back_alike_without_yapf(tmp_path, monkeypatch):
    def slow(*_, **__):
        raise AssertionError("yapf was called")

    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", slow)
    read = config.load(ROOT / "configs/dino_swin_l.py")
    copy.deepcopy(read).dump(tmp_path / "written.py")
    assert config.load(tmp_path / "written.py").to_dict() == read.to_dict()


def test_importing_the_room_registers_what_configs_name():
    assert swin_dense.openmmlab
    assert {"Progress", "FiniteLoss", "HostMemory", "PlainCheckpoint"} <= set(HOOKS.module_dict)


@pytest.mark.parametrize(
    ("key", "value", "place", "expected"),
    [
        (
            "env_cfg.mp_cfg.mp_start_method",
            "spawn",
            "env_cfg",
            {"mp_cfg": {"mp_start_method": "spawn"}},
        ),
        (
            "default_hooks.timer.priority",
            "LOW",
            "default_hooks",
            {"timer": {"priority": "LOW", "type": "IterTimerHook"}},
        ),
        ("visualizer.name", "x", "visualizer", {"name": "x", "type": "Visualizer"}),
        ("log_processor.window_size", 3, "log_processor", {"window_size": 3}),
    ],
)
def test_a_section_that_the_config_leaves_out_may_be_set(tmp_path, key, value, place, expected):
    found = config.load(write(tmp_path, GOOD), {key: value})
    assert found[place].to_dict() == expected


def test_an_argument_like_one_that_is_there_may_be_set(tmp_path):
    """`save_last` is near `save_best`, and the class takes both."""
    hook = "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='auto'))\n"
    key = "default_hooks.checkpoint.save_last"
    found = config.load(write(tmp_path, GOOD + hook), {key: False}).default_hooks.checkpoint
    assert (found.save_best, found.save_last) == ("auto", False)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (
            "env_cfg.cudnn_bench",
            "nothing reads env_cfg.cudnn_bench. Did you mean 'cudnn_benchmark'",
        ),
        ("randomness.sed", "nothing reads randomness.sed. Did you mean 'seed'"),
        ("default_hooks.chekpoint.interval", "Did you mean 'checkpoint'"),
        ("default_hooks.checkpoint.keep", "CheckpointHook takes no argument 'keep'"),
        ("log_processor.by_epoc", "LogProcessor takes no argument 'by_epoc'"),
        ("train_cfg.foo", "EpochBasedTrainLoop takes no argument 'foo'"),
        ("custom_hooks.0.type", "custom_hooks is a list that this config leaves out"),
        ("launcher", "the command has `launcher` for it"),
    ],
)
def test_an_option_that_nothing_reads(tmp_path, key, says):
    text = GOOD + "train_cfg = dict(by_epoch=True, max_epochs=1)\n"
    with pytest.raises(InputError, match=says):
        config.load(write(tmp_path, text), {key: 3})
