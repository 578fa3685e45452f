"""What numbers betray: broken values, the other order of patch merging, norms upside down."""

import pytest
import torch
from conftest import ROOT

import swin_dense.backbones  # noqa: F401  registers what it finds suspicious
from swin_dense.checkpoints import files, suspicious
from swin_dense.errors import InputError

SIGN = r"nn\.Unfold"


@pytest.fixture(params=["mask_rcnn_swin_nano", "upernet_swin_nano"])
def trained_state(request):
    """Weights that were really trained, if only for minutes."""
    state = files.read(ROOT / f"demo/weights/{request.param}.safetensors").weights
    return {name: tensor.float() for name, tensor in state.items()}


def reordered(state):
    """By hand: place 4 * c + 2 * column + row of nn.Unfold's order, from row and column."""
    changed = dict(state)
    for name, tensor in state.items():
        if "downsample" not in name:
            continue
        channels = tensor.shape[-1] // 4
        places = []
        for channel in range(channels):
            for row in (0, 1):
                for column in (0, 1):
                    places.append((row + 2 * column) * channels + channel)
        changed[name] = tensor[..., places]
    return changed


def test_the_authors_order_passes(trained_state):
    suspicious.refuse_impossible(trained_state, "w")
    suspicious.refuse_suspicious(trained_state, "w")
    assert list(suspicious.swapped_norms(trained_state)) == []


def test_the_other_order_under_the_authors_names_is_refused(trained_state):
    with pytest.raises(InputError, match=SIGN):
        suspicious.refuse_suspicious(reordered(trained_state), "w")
    bare = {n.removeprefix("backbone."): t for n, t in reordered(trained_state).items()}
    with pytest.raises(InputError, match=SIGN):
        suspicious.refuse_suspicious(bare, "w")


def test_other_projects_names_are_not_judged(trained_state):
    theirs = {n.replace("layers.", "stages."): t for n, t in reordered(trained_state).items()}
    suspicious.refuse_suspicious(theirs, "w")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("drawn", [True, False])
def test_random_weights_say_nothing(seed, drawn):
    random = torch.Generator().manual_seed(seed)
    state = {}
    for stage, channels in enumerate((24, 48, 96)):
        place = f"layers.{stage}.downsample."
        state[place + "reduction.weight"] = torch.randn(
            2 * channels, 4 * channels, generator=random
        )
        norm = torch.ones(4 * channels)
        state[place + "norm.weight"] = norm if drawn else torch.rand(4 * channels, generator=random)
        state[place + "norm.bias"] = torch.randn(4 * channels, generator=random)
    suspicious.refuse_suspicious(state, "w")


def test_the_second_version_norms_what_it_reduced():
    """There only the reduction can tell; its columns of one channel are made alike."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for stage, channels in enumerate((24, 48)):
        size = torch.rand(channels, generator=random).repeat(4) + 0.1
        place = f"backbone.layers.{stage}.downsample."
        state[place + "reduction.weight"] = (
            torch.randn(2 * channels, 4 * channels, generator=random) * size
        )
        state[place + "norm.weight"] = torch.rand(2 * channels, generator=random)
    suspicious.refuse_suspicious(state, "w")
    names = [n for n in state if "reduction" in n]
    swapped = state | {n: reordered({n: state[n]})[n] for n in names}
    with pytest.raises(InputError, match=SIGN):
        suspicious.refuse_suspicious(swapped, "w")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value):
    state = {"a": torch.ones(3), "b": torch.tensor([1.0, value]), "n": torch.tensor(3)}
    with pytest.raises(InputError, match=r"some\.pth .* 1 of 3 tensors, first b"):
        suspicious.refuse_impossible(state, "some.pth")


def test_negative_variances_are_refused():
    state = {"bn.running_var": torch.tensor([1.0, -0.1]), "bn.running_mean": torch.tensor([-1.0])}
    with pytest.raises(InputError, match=r"negative variances .* first bn.running_var"):
        suspicious.refuse_impossible(state, "some.pth")


def test_norms_upside_down_are_suspicious(trained_state):
    name = "backbone.layers.2.blocks.1.norm1."
    weight, bias = trained_state[name + "weight"], trained_state[name + "bias"]
    trained_state |= {name + "weight": bias, name + "bias": weight}
    (sign,) = suspicious.swapped_norms(trained_state)
    assert name + "weight" in sign


def test_what_cannot_be_seen_is_not_claimed(trained_state):
    """Equal shapes that changed places between two blocks look like any others."""
    a, b = (f"backbone.layers.2.blocks.{i}.mlp.fc1.weight" for i in (0, 1))
    trained_state |= {a: trained_state[b], b: trained_state[a]}
    suspicious.refuse_impossible(trained_state, "w")
    suspicious.refuse_suspicious(trained_state, "w")
    assert list(suspicious.swapped_norms(trained_state)) == []
