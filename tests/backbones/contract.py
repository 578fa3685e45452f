"""The questions that every registered backbone is asked, of a small size (`Contract.size`).

A test file of an architecture inherits them in a line, and adds its oracle:

    class TestConvNeXt(Contract):
        kind = ConvNeXt
"""

import copy
from typing import Any, ClassVar

import pytest
import torch
from mmengine.registry import MODELS
from networks import assert_gradients_close, gradients, randomised, weighted_sum
from torch import nn

from swin_dense.backbones.backbone import Backbone

SIZE = (61, 75)  # of an image where any will do; no multiple of a patch, a window or a stride


class Contract:
    """Ask a backbone all that `Backbone` promises."""

    kind: ClassVar[type[Backbone]]
    # The size that is asked, and those that no paper has.
    size: ClassVar[str] = "nano"
    ours: ClassVar[tuple[str, ...]] = ("nano",)
    # Millions of parameters of each size, as its authors count; of them a classifier's `classes`,
    # and how well theirs and ours agree.
    parameters: ClassVar[dict[str, float]] = {}
    classes: ClassVar[int] = 0
    agree: ClassVar[float] = 0.005
    bfloat16: ClassVar[float] = 0.05  # how far maps under autocast may be off, of their mean

    @pytest.fixture(autouse=True)
    def _seed(self) -> None:
        torch.manual_seed(0)

    def model(self, **changes: Any) -> Backbone:
        """Build the size that is asked, every parameter far from where it starts."""
        return randomised(self.kind(self.size, **{"drop_path_rate": 0.0, **changes}))

    # Sizes by name.

    def test_sizes_are_those_of_the_paper(self) -> None:
        assert self.parameters.keys() == self.kind.archs.keys() - {*self.ours}
        for name, millions in self.parameters.items():
            with torch.device("meta"):
                model = self.kind(name)
            counted = sum(p.numel() for p in model.parameters())
            counted += model.out_channels[-1] * self.classes
            assert counted / 1e6 == pytest.approx(millions, rel=self.agree), name

    def test_a_size_that_does_not_exist_is_named(self) -> None:
        with pytest.raises(ValueError, match=rf"^{self.kind.__name__}: .*'nanno'.*mean 'nano'"):
            self.kind("nanno")

    def test_an_argument_beside_the_size_changes_it(self) -> None:
        (name, value), *_ = self.kind.archs[self.size].items()
        wider = value * 2 if isinstance(value, int) else tuple(2 * x for x in value)
        counts = [
            sum(p.numel() for p in self.kind(self.size, **change).parameters())
            for change in ({}, {name: wider})
        ]
        assert counts[1] > counts[0]

    def test_unknown_arguments_are_refused(self) -> None:
        with pytest.raises(TypeError, match="embed_dims"):
            self.kind(self.size, embed_dims=96)

    def test_it_is_built_from_a_config_under_our_name_alone(self) -> None:
        with torch.device("meta"):
            built = MODELS.build(dict(type=f"swin_dense.{self.kind.__name__}", arch="nano"))
        assert type(built) is self.kind
        assert self.kind.__name__ not in MODELS.module_dict

    # Maps.

    @pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), (2,)])
    @pytest.mark.parametrize("beyond", [(0, 0), (1, 0), (29, 51)])
    def test_announces_what_it_returns(self, out_indices, beyond) -> None:
        model = self.model(out_indices=out_indices).eval()
        size = [model.smallest_image + more for more in beyond]
        maps = model(torch.randn(2, 3, *size))
        assert isinstance(maps, tuple)
        assert [m.shape[:2] for m in maps] == [(2, channels) for channels in model.out_channels]
        for found, stride in zip(maps, model.out_strides, strict=True):
            shares = [side / stride for side in size]
            near = [abs(n - x) < 1 for n, x in zip(found.shape[2:], shares, strict=True)]
            assert all(near), (found.shape, stride, size)

    def test_fewer_maps_are_the_same_maps(self) -> None:
        every, some = self.model().eval(), self.model(out_indices=(0, 2)).eval()
        some.load_state_dict(every.state_dict(), strict=False)
        image = torch.randn(1, 3, *SIZE)
        maps = every(image)
        for got, want in zip(some(image), (maps[0], maps[2]), strict=True):
            assert torch.equal(got, want)

    def test_several_sizes_leave_no_trace(self) -> None:
        model = self.model().eval()
        images = [torch.randn(1, 3, *size) for size in ((64, 96), SIZE, (96, 64))]
        first = [model(image) for image in images]
        for image, before in zip(images, first, strict=True):
            for got, want in zip(model(image), before, strict=True):
                assert torch.equal(got, want)

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        model = self.model().eval()
        images = torch.randn(3, 3, *SIZE)
        images[1] *= 7
        for index in range(3):
            alone = model(images[index : index + 1])
            for got, want in zip(model(images), alone, strict=True):
                torch.testing.assert_close(got[index : index + 1], want, atol=1e-5, rtol=1e-5)

    def test_no_image_gives_no_maps(self) -> None:
        maps = self.model().eval()(torch.randn(0, 3, *SIZE))
        assert [m.shape[0] for m in maps] == [0, 0, 0, 0]

    def test_other_channels_of_the_image(self) -> None:
        maps = self.model(in_channels=5)(torch.randn(1, 5, *SIZE))
        assert all(m.isfinite().all() for m in maps)

    # Training.

    @pytest.mark.parametrize("changes", [{}, {"out_indices": (1, 2)}, {"with_cp": True}])
    def test_every_parameter_that_trains_gets_a_gradient(self, changes) -> None:
        model = self.model(**changes).train()
        found = gradients(model, torch.randn(2, 3, *SIZE))
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert found.keys() - {"image"} == trained
        assert all(g.abs().sum() > 0 for g in found.values())
        unused = {n for n, _ in model.named_parameters()} - trained
        assert bool(unused) == ("out_indices" in changes)

    def test_checkpointed_equals_plain(self) -> None:
        plain = self.model(drop_path_rate=0.5).train()
        spared = copy.deepcopy(plain)
        spared.with_cp = True
        image = torch.randn(2, 3, *SIZE)
        found = []
        for model in (plain, spared):
            torch.manual_seed(3)  # the same branches are dropped
            maps = model(image)
            torch.manual_seed(3)
            found.append((maps, gradients(model, image)))
        for got, want in zip(found[1][0], found[0][0], strict=True):
            assert torch.equal(got, want)
        assert_gradients_close(found[1][1], found[0][1], rel=1e-6)

    def test_it_is_frozen_from_the_start_and_after_train(self) -> None:
        image = torch.randn(1, 3, *SIZE)
        stages = len(self.model().out_indices)
        before: set[str] = set()
        for count in range(-1, stages + self.kind.frozen_before_stages + 1):
            model = self.model(frozen_stages=count)
            frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
            assert frozen >= before
            assert bool(frozen) == (count >= 0)
            assert model.train() is model
            assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen
            for name, module in model.named_modules():
                own = {f"{name}.{n}" for n, _ in module.named_parameters(recurse=False)}
                if own and own <= frozen:
                    assert not module.training, name
            assert frozen.isdisjoint(gradients(model, image))
            assert model.eval() is model
            assert not any(m.training for m in model.modules())
            before = frozen
        # With all of it frozen, the norms of the maps still train.
        rest = {n for n, _ in self.model().named_parameters()} - before
        assert rest
        assert all(model.depth_of(n) == model.depth + 1 for n in rest)

    def test_every_parameter_lies_in_a_layer(self) -> None:
        model = self.model()
        names = [n for n, _ in model.named_parameters()]
        layers = [model.depth_of(n) for n in names]
        assert set(layers) == set(range(model.depth + 2))
        assert layers[0] == 0
        image = torch.randn(1, 3, *SIZE)
        first = gradients(self.model(out_indices=(0,)), image).keys() - {"image"}
        assert model.depth not in {model.depth_of(name) for name in first}

    def test_matrices_of_layers_decay(self) -> None:
        """Only named tables and vectors are exempt, none of the weights that multiply features."""
        model = self.model()
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) or getattr(module, "in_features", 0) > 2:
                words = [w for w in self.kind.no_weight_decay_keywords if w in f"{name}.weight"]
                assert not words or name.rpartition(".")[2].isdigit(), name

    def test_bfloat16_autocast_is_close(self) -> None:
        model = self.model().train()
        image = torch.randn(6, 3, *SIZE)  # the last map of one is a handful of numbers
        with torch.no_grad():
            exact = model(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = model(image)
        for got, want in zip(maps, exact, strict=True):
            assert (got - want).abs().mean() < self.bfloat16 * want.abs().mean()
        weighted_sum([m.float() for m in maps]).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_paths_are_dropped_in_training_alone(self) -> None:
        model = self.model(drop_path_rate=0.9).train()
        images = torch.randn(1, 3, *SIZE).repeat(8, 1, 1, 1)
        last = model(images)[-1]
        assert not all(torch.allclose(last[0], other) for other in last[1:])
        last = model.eval()(images)[-1]
        assert all(torch.allclose(last[0], other, atol=1e-5) for other in last[1:])

    # Mistakes.

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"drop_path_rate": 1.0}, r"from 0 to below 1; got 1\.0\. Usual"),
            ({"out_indices": (2, 0)}, r"to 3, in growing .*\(2, 0\)\. Try \(0, 1"),
            ({"out_indices": (1, 1)}, r"each once; got \(1, 1\)"),
            ({"out_indices": (0, 4)}, r"from 0 to 3.*got \(0, 4\)"),
            ({"out_indices": (-1,)}, r"from 0 to 3.*got \(-1,\)"),
            ({"out_indices": ()}, r"got \(\)\. Try \(0, 1, 2, 3\)"),
            ({"frozen_stages": 9}, r"\(all 4 stages frozen\); got 9\. Freeze the first n"),
        ],
    )
    def test_wrong_arguments_say_the_rule(self, changes, text) -> None:
        with pytest.raises(ValueError, match=f"^{self.kind.__name__}: .*{text}"):
            self.kind(self.size, **changes)

    def test_wrong_images_say_the_rule(self) -> None:
        model = self.model()
        least = model.smallest_image
        for shape, text in (
            ((1, 1, 64, 64), r"\(B, 3, height, width\), this has shape \(1, 1, 64, 64\)\. Set in_"),
            ((3, 64, 64), r"shape \(3, 64, 64\)"),
            ((1, 3, 64, least - 1), rf"64x{least - 1} pixels .*allowed is {least}x{least}; resize"),
        ):
            with pytest.raises(ValueError, match=f"^{self.kind.__name__}: .*{text}"):
                model(torch.zeros(shape))

    # Compilers.

    def test_compiles_as_one_graph(self) -> None:
        model = self.model(out_indices=(0, 1)).eval()
        image = torch.randn(2, 3, *SIZE)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        want, got = gradients(model, image), gradients(compiled, image)
        for mine, yours in zip(compiled(image), model(image), strict=True):
            torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-5)
        prefix = "_orig_mod."
        assert_gradients_close({n.removeprefix(prefix): g for n, g in got.items()}, want, rel=1e-4)

    def test_exports_for_every_size(self) -> None:
        """One program for all sizes of more than one window in the last stage."""
        model = self.model(out_indices=(0, 1)).eval()
        least = 129
        sizes = {2: torch.export.Dim("height", min=least), 3: torch.export.Dim("width", min=least)}
        program = torch.export.export(
            model, (torch.randn(2, 3, 145, 138),), dynamic_shapes={"image": sizes}
        )
        for size in ((144, 130), (least, 161)):
            image = torch.randn(2, 3, *size)
            for mine, yours in zip(program.module()(image), model(image), strict=True):
                torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)
