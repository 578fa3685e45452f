"""Files over models: own names, other layouts, a backbone and a whole, and no Swin at all."""

import hashlib

import pytest
import torch

from swin_dense.backbones.swin import Swin
from swin_dense.backbones.swin_v2 import SwinV2
from swin_dense.checkpoints import files, fitting, ledger
from swin_dense.errors import InputError

SMALL = dict(embed_dim=8, depths=(1, 2), num_heads=(1, 2), out_indices=(0, 1))
HEAD = {"decode_head.conv_seg.weight": (6, 4, 1, 1), "decode_head.conv_seg.bias": (6,)}
ANY = {"stem.weight": torch.ones(3, 2), "stem.bias": torch.ones(3), "fc.weight": torch.ones(5, 3)}


def randomised(module):
    torch.manual_seed(3)
    return {n: torch.rand_like(t) + 0.5 for n, t in module.state_dict().items()}


@pytest.fixture
def backbone():
    return Swin(window_size=3, **SMALL)


@pytest.fixture
def on_disk(tmp_path):
    def save(state):
        torch.save(state, tmp_path / "w.pth")
        return files.read(tmp_path / "w.pth")

    return save


def whole(state):
    return {f"backbone.{n}": t for n, t in state.items()} | {
        n: torch.ones(shape) for n, shape in HEAD.items()
    }


def classification(state):
    """As the authors' classifier names it: one norm behind the last stage, and a head."""
    renamed = {
        n.replace("norm1.", "norm.") if n.startswith("norm1.") else n: t
        for n, t in state.items()
        if not n.startswith("norm0.")
    }
    index = torch.zeros(9, 9, dtype=torch.long)
    return renamed | {
        "head.weight": torch.ones(10, 16),
        "layers.0.blocks.0.attn.relative_position_index": index,
    }


def test_its_own_names_need_no_conversion(backbone, on_disk):
    state = randomised(backbone)
    loaded, account = fitting.fit(backbone.state_dict(), on_disk(state))
    assert all(torch.equal(loaded[n], t) for n, t in state.items())
    assert (account.layout, account.share, account.random) == (fitting.OWN, 1, {})
    data = on_disk(state).path.read_bytes()
    assert account.sha256 == hashlib.sha256(data).hexdigest()


def test_a_classification_file(backbone, on_disk):
    state = randomised(backbone)
    loaded, account = fitting.fit(backbone.state_dict(), on_disk(classification(state)))
    assert "classification" in account.layout
    assert account.random == {ledger.NORMS: {"norm0.weight": (8,), "norm0.bias": (8,)}}
    assert account.share == 1
    assert set(account.unused) == {
        "head.weight",
        "layers.0.blocks.0.attn.relative_position_index",
    }
    assert torch.equal(loaded["norm1.weight"], state["norm1.weight"])
    assert len(loaded) == len(state) - 2


def test_a_detector_s_backbone_for_a_backbone(backbone, on_disk):
    state = randomised(backbone)
    loaded, account = fitting.fit(backbone.state_dict(), on_disk(whole(state)))
    assert loaded.keys() == state.keys()
    assert account.unused == dict.fromkeys(HEAD, fitting.OUTSIDE)


def test_a_bare_backbone_for_a_detector_is_far_from_all(backbone, on_disk):
    state = randomised(backbone)
    model = whole(state) | {"neck.weight": torch.ones(100, 100)}
    loaded, account = fitting.fit(model, on_disk(state))
    assert len(loaded) == len(state)
    assert account.share < 0.6
    assert set(account.lost) == {*HEAD, "neck.weight"}


def test_another_window_is_resized_where_training_goes_on(backbone, on_disk):
    state = randomised(Swin(window_size=5, **SMALL))
    loaded, account = fitting.fit(backbone.state_dict(), on_disk(state))
    assert account.share == 1
    assert len(account.resized) == 3
    assert all(loaded[n].shape == t.shape for n, t in backbone.state_dict().items())
    _, strict = fitting.fit(backbone.state_dict(), on_disk(state), resizes=False)
    assert len(strict.random[ledger.RESHAPED]) == 3
    assert strict.share < 1


def test_layers_of_classes_start_anew(backbone, on_disk):
    state = whole(randomised(backbone))
    model = dict(state, **{n: torch.zeros(9, *s[1:]) for n, s in HEAD.items()})
    _, account = fitting.fit(model, on_disk(state), class_layers=lambda: set(HEAD))
    assert set(account.random[ledger.CLASSES]) == set(HEAD)
    assert account.share == 1
    _, account = fitting.fit(model, on_disk(state))
    assert set(account.random[ledger.RESHAPED]) == set(HEAD)


def test_as_many_other_classes_start_anew_too(backbone, on_disk):
    state = whole(randomised(backbone))
    loaded, account = fitting.fit(
        state, on_disk(state), class_layers=lambda: set(HEAD), other_classes=True
    )
    assert set(account.random[ledger.CLASSES]) == set(HEAD)
    assert not set(HEAD) & loaded.keys()


def test_classes_are_not_asked_for_where_they_do_not_matter(backbone, on_disk):
    def fail():
        raise AssertionError

    state = whole(randomised(backbone))
    assert fitting.fit(state, on_disk(state), class_layers=fail)[1].share == 1


def test_what_was_allowed_by_name_is_not_lost(backbone, on_disk):
    state = whole(randomised(backbone))
    rest = {n: t for n, t in state.items() if n not in HEAD}
    _, account = fitting.fit(state, on_disk(rest), allowed=["decode_head"])
    assert set(account.random[ledger.ALLOWED]) == set(HEAD)
    assert account.share == 1


@pytest.mark.parametrize("before", ["", "module.", "backbone.", "module.backbone."])
def test_models_that_are_no_swin_load_by_name(on_disk, before):
    state = {before + n: t for n, t in ANY.items()} | {before + "more": torch.ones(1)}
    loaded, account = fitting.fit(ANY, on_disk(state))
    assert loaded.keys() == ANY.keys()
    assert account.share == 1
    assert account.unused == {"more": fitting.EXTRA}


def test_no_swin_in_part(on_disk):
    state = {n: t for n, t in ANY.items() if n != "stem.bias"}
    _, account = fitting.fit(ANY, on_disk({**state, "other": torch.ones(1)}))
    assert account.layout == fitting.UNKNOWN
    assert set(account.lost) == {"stem.bias"}
    assert account.share == 2 / 3


@pytest.mark.parametrize("named", ["module.", "_orig_mod.", "model.backbone.", "student.module."])
def test_wrapped_weights_are_its_own(backbone, on_disk, named):
    state = randomised(backbone)
    loaded, account = fitting.fit(
        backbone.state_dict(), on_disk({named + n: t for n, t in state.items()})
    )
    assert all(torch.equal(loaded[n], t) for n, t in state.items())
    assert (account.layout, account.share, account.unused) == (fitting.OWN, 1, {})


def test_names_that_begin_like_wrappers_can_be_the_model_s(on_disk):
    """As those of a compiled module that is trained on."""
    model = {f"model._orig_mod.{n}": t for n, t in ANY.items()}
    loaded, account = fitting.fit(model, on_disk(model))
    assert loaded.keys() == model.keys()
    assert account.share == 1


def test_the_first_version_in_the_second(backbone, on_disk):
    checkpoint = on_disk(classification(randomised(backbone)))
    checkpoint.source = "swin_small_patch4_window7_224"
    model = SwinV2(window_size=4, **SMALL).state_dict()
    _, account = fitting.fit(model, checkpoint, part="backbone")
    with pytest.raises(InputError) as refusal:
        account.require(0.95, "")
    assert str(refusal.value) == (
        "checkpoint: swin_small_patch4_window7_224 holds weights of Swin V1 (found: official Swin "
        "V1 classification), but the backbone is Swin V2. Take weights of Swin V2, or change the "
        "backbone to Swin V1. Did you mean 'swinv2_small_patch4_window8_256'?"
    )


def test_a_resnet_in_a_swin(backbone, on_disk):
    resnet = {"conv1.weight": torch.ones(4, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(4, 4)}
    _, account = fitting.fit(whole(backbone.state_dict()), on_disk(resnet))
    with pytest.raises(InputError, match=r"of a ResNet, but the model's backbone is Swin V1\."):
        account.require(0.95, "")


def test_counters_are_no_loss(on_disk):
    model = {"bn.weight": torch.ones(4), "bn.num_batches_tracked": torch.tensor(0)}
    _, account = fitting.fit(model, on_disk({"bn.weight": torch.ones(4)}))
    assert account.share == 1
    assert set(account.random) == {ledger.COUNTERS}


def test_every_tensor_is_in_the_account_once(backbone, on_disk):
    state = classification(randomised(backbone))
    model = backbone.state_dict()
    _, account = fitting.fit(model, on_disk(state))
    named = [*account.loaded, *(n for names in account.random.values() for n in names)]
    assert sorted(named) == sorted(model)
    assert len(account.loaded) + len(account.unused) == len(state)


def test_broken_numbers_are_refused_before_anything(backbone, on_disk):
    state = randomised(backbone)
    state["norm1.weight"][2] = float("nan")
    with pytest.raises(InputError, match=r"NaN or infinite\) in 1 of"):
        fitting.fit(backbone.state_dict(), on_disk(state))
