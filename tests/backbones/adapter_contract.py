"""The questions of the contract that have a meaning for a network of another project.

Left out are those about sizes by name, which an adapter has none of, and about compilers and
16 bits, which are the other project's own affair.
"""

import copy
import functools
from typing import Any, ClassVar

import pytest
import torch
from contract import SIZE, Contract
from networks import gradients, randomised

from swin_dense.backbones.adapter import Adapter

OF_OWN_SIZES = (
    "test_sizes_are_those_of_the_paper",
    "test_a_size_that_does_not_exist_is_named",
    "test_an_argument_beside_the_size_changes_it",
    "test_unknown_arguments_are_refused",
    "test_matrices_of_layers_decay",
)
OF_OWN_CODE = (
    "test_bfloat16_autocast_is_close",
    "test_checkpointed_equals_plain",
    "test_paths_are_dropped_in_training_alone",
    "test_compiles_as_one_graph",
    "test_exports_for_every_size",
)


class AdapterContract(Contract):
    """Ask an adapter, of each model in `stated`, what `Backbone` promises."""

    kind: ClassVar[type[Adapter]]

    @pytest.fixture(autouse=True)
    def _of(self, stated: dict[str, Any]) -> None:
        """Take the model that a test file gives by a fixture called `stated`."""
        self.stated = stated
        every = made(self.kind, freeze(stated)).out_indices
        self.every = every

    def model(self, **changes: Any) -> Adapter:
        places = changes.pop("out_indices", None)
        if places is not None:  # of the maps that come by default
            count = len(self.every)
            chosen = tuple(dict.fromkeys(self.every[min(p, count - 1)] for p in places))
            changes |= {"out_indices": chosen} if chosen != self.every else {}
        return copy.deepcopy(made(self.kind, freeze({**self.stated, **changes})))

    def size(self, height: int, width: int, model: Adapter) -> tuple[int, int]:
        """Return a size that the model takes, small and no multiple of anything."""
        fixed, least = model.asked.fixed, model.smallest_image
        if fixed:
            return min(height, fixed[0]), min(width, fixed[1])
        return max(height, least), max(width, least)

    @pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1,)])
    def test_announces_what_it_returns(self, out_indices) -> None:
        model = self.model(out_indices=out_indices).eval()
        for more in ((0, 0), (29, 51)):
            size = self.size(model.smallest_image + more[0], model.smallest_image + more[1], model)
            with torch.no_grad():
                maps = model(torch.randn(1, 3, *size))
            assert isinstance(maps, tuple)
            assert [m.shape[:2] for m in maps] == [(1, c) for c in model.out_channels]
            for found, stride in zip(maps, model.out_strides, strict=True):
                shares = [side / stride for side in size]
                near = [abs(n - x) < 1 for n, x in zip(found.shape[2:], shares, strict=True)]
                assert all(near), (found.shape, stride, size)

    def test_fewer_maps_are_the_same_maps(self) -> None:
        every, some = self.model().eval(), self.model(out_indices=(1,)).eval()
        places = [self.every.index(i) for i in some.out_indices]
        missing, _ = some.load_state_dict(every.state_dict(), strict=False)
        assert not missing
        image = torch.randn(1, 3, *self.size(*SIZE, every))
        with torch.no_grad():
            maps = every(image)
            for got, place in zip(some(image), places, strict=True):
                torch.testing.assert_close(got, maps[place], atol=1e-5, rtol=1e-5)

    def test_several_sizes_leave_no_trace(self) -> None:
        model = self.model().eval()
        sizes = [self.size(*size, model) for size in ((64, 96), SIZE)]
        images = [torch.randn(1, 3, *size) for size in sizes]
        with torch.no_grad():
            first = model(images[0])
            model(images[1])
            for got, want in zip(model(images[0]), first, strict=True):
                assert torch.equal(got, want)

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        model = self.model().eval()
        images = torch.randn(2, 3, *self.size(*SIZE, model))
        images[1] *= 7
        with torch.no_grad():
            both, alone = model(images), model(images[:1])
        for got, want in zip(both, alone, strict=True):
            scale = want.abs().max().clamp(min=1)
            assert (got[:1] - want).abs().max() <= 1e-4 * scale

    def test_no_image_gives_no_maps(self) -> None:
        model = self.model().eval()
        maps = model(torch.randn(0, 3, *self.size(*SIZE, model)))
        assert [m.shape[:2] for m in maps] == [(0, c) for c in model.out_channels]

    def test_other_channels_of_the_image(self) -> None:
        model = self.model(in_channels=5).eval()
        with torch.no_grad():
            maps = model(torch.randn(1, 5, *self.size(*SIZE, model)))
        assert [m.shape[1] for m in maps] == list(model.out_channels)

    @pytest.mark.parametrize("changes", [{}, {"out_indices": (1,)}])
    def test_every_parameter_that_trains_gets_a_gradient(self, changes) -> None:
        model = self.model(**changes).eval()  # of one image some norms have nothing to learn from
        found = gradients(model, torch.randn(1, 3, *self.size(*SIZE, model)))
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert found.keys() - {"image"} == trained
        assert trained

    def test_it_is_frozen_from_the_start_and_after_train(self) -> None:
        before: set[str] = set()
        for count in (-1, 0, self.every[-1] + 1):
            model = self.model(frozen_stages=count)
            frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
            assert frozen >= before
            assert count < 0 or frozen
            assert model.train() is model
            assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen
            for name, module in model.named_modules():
                own = {f"{name}.{n}" for n, _ in module.named_parameters()}
                if own and own <= frozen:
                    assert not module.training, name
            before = frozen
        # With all of it frozen, the norms of the maps still train.
        rest = {n for n, _ in model.named_parameters()} - before
        assert rest == {f"norm{i}.{end}" for i in self.every for end in ("weight", "bias")}

    def test_every_parameter_lies_in_a_layer(self) -> None:
        model = self.model()
        layers = [model.depth_of(n) for n, _ in model.named_parameters()]
        assert set(layers) == set(range(model.depth + 2))
        assert model.depth >= 2
        words = model.no_weight_decay_keywords
        decays = [n for n, p in model.named_parameters() if not any(w in n for w in words)]
        assert len(decays) > len(layers) / 2

    def test_wrong_arguments_say_the_rule(self) -> None:
        for changes, text in (
            ({"drop_path_rate": 1.0}, r"below 1; got 1\.0|does not take drop_path_rate"),
            ({"frozen_stages": 99}, r"frozen\); got 99\. Freeze the first n"),
        ):
            with pytest.raises(ValueError, match=text):
                self.kind(**{**self.stated, **changes})
        for indices in ((2, 0), (1, 1), (0, 99), (-1,), ()):
            with pytest.raises(ValueError, match=r"out_indices are stages from 0 to .* each once"):
                self.kind(**{**self.stated, "out_indices": indices})

    def test_wrong_images_say_the_rule(self) -> None:
        model = self.model()
        least = model.smallest_image
        for shape, text in (
            ((1, 1, 64, 64), r"\(B, 3, height, width\), this has shape \(1, 1, 64, 64\)\. Set in_"),
            ((1, 3, least, least - 1), rf"pixels .*allowed is {least}x{least}; resize"),
        ):
            with pytest.raises(ValueError, match=text):
                model(torch.zeros(shape))


for _name in (*OF_OWN_SIZES, *OF_OWN_CODE, "test_it_is_built_from_a_config_under_our_name_alone"):
    assert hasattr(Contract, _name)
    setattr(AdapterContract, _name, None)


def freeze(stated: Any) -> Any:
    """Turn what a config states into a key."""
    if isinstance(stated, dict):
        return tuple((key, freeze(value)) for key, value in stated.items())
    return tuple(map(freeze, stated)) if isinstance(stated, list | tuple) else stated


@functools.lru_cache(maxsize=6)
def made(kind: type[Adapter], key: tuple) -> Adapter:
    """Build a model once for several questions, with norms of its maps, far from its start."""
    stated = dict(key)
    for name in ("options", "config"):
        if name in stated:
            stated[name] = dict(stated[name])
    return randomised(kind(output_norm=True, **stated))
