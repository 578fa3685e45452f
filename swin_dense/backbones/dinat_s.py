"""DiNAT_s (arXiv 2209.15001, section 4): Swin with dilated neighborhoods for its windows.

Weights carry the names of the authors' dense-prediction code.
Letters: B images, H W positions in a column and a row, C channels.
"""

from collections.abc import Sequence

from swin_dense.backbones.nat import DILATIONS, Block, Dilations, check_sizes
from swin_dense.backbones.pyramid import Pyramid
from swin_dense.backbones.swin import SIZES, PatchMerging
from swin_dense.registry import MODELS

DINAT_S_SIZES = {name: {**size, "dilations": DILATIONS} for name, size in SIZES.items()}
DINAT_S_SIZES["nano"]["dilations"] = ((1, 4), (1, 2), (2, 1), (1,))


@MODELS.register_module()
class DiNAT_s(Pyramid):  # the name that the authors' configs give it
    """Swin's stem, sizes and merging around neighborhood attention, for images of any size."""

    archs = DINAT_S_SIZES
    no_weight_decay_keywords = ("rpb", "norm")

    def __init__(
        self,
        arch: str = "tiny",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        kernel_size: int = 7,
        dilations: Dilations | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_size: int = 4,
        in_channels: int = 3,
        patch_norm: bool = True,
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name, "tiny" to "large"; what follows changes it.
            embed_dim: C of the first stage; it doubles from stage to stage.
            depths: blocks of each stage.
            num_heads: attention heads of each stage; they divide its C.
            kernel_size: side of a window, in positions; odd.
            dilations: of the blocks of each stage, how far apart the positions of a window lie;
                where there are fewer than blocks they begin again. A map smaller than kernel_size
                x dilation is padded.
            mlp_ratio: hidden channels of an MLP as a multiple of C.
            qkv_bias: whether the projection to q, k and v has a bias.
            qk_scale: factor on q; None for 1 / sqrt(C / heads).
            patch_size: side of a position of the first stage, in pixels.
            in_channels: channels of the image.
            patch_norm: norm the positions after the first projection.
            drop_path_rate: share of images that lose a branch of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train, counted as `Swin` does: from 0 on the patch
                embedding, from 2 on also the first `frozen_stages - 1` stages.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(
            arch, embed_dim=embed_dim, depths=depths, num_heads=num_heads, dilations=dilations
        )
        steps = size.pop("dilations")
        check_sizes(self._name, **size, kernel_size=kernel_size, dilations=steps)

        def block(stage: int, channels: int, number: int, drop_path: float) -> Block:
            return Block(
                channels,
                size["num_heads"][stage],
                kernel_size,
                steps[stage][number % len(steps[stage])],
                mlp_ratio,
                qkv_bias,
                qk_scale,
                drop_path,
            )

        super().__init__(
            block,
            PatchMerging,
            **size,
            window_size=kernel_size,
            patch_size=patch_size,
            in_channels=in_channels,
            ape=False,
            pretrain_img_size=224,
            patch_norm=patch_norm,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
