"""Small models of ours and of others, far from where they start, and what they compute alike."""

import torch
from torch import Tensor, nn

from swin_dense.backbones import Swin, SwinV2
from swin_dense.checkpoints.layouts import convert, export

# No two numbers of a stage agree, and the last stage has no shift: its map is a single window at
# some of the sizes below, where projects differ.
DEPTHS, HEADS, WIDTH, WINDOW = (2, 1, 3, 1), (1, 2, 3, 4), 12, 4
SMALL = {"embed_dim": WIDTH, "depths": DEPTHS, "num_heads": HEADS, "window_size": WINDOW}
IMAGE = (256, 128)  # multiples of 32 * window: no side is padded anywhere
V1, V2, MLP = "Swin V1", "Swin V2", "Swin-MLP"
OURS = {V1: Swin, V2: SwinV2}


def randomise(model: nn.Module) -> nn.Module:
    """Every parameter away from where it starts, so that no branch is the identity."""
    random = torch.Generator().manual_seed(7)
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d)}
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(1 + 0.3 * noise if id(p) in norms else 0.2 * noise)
    model.eval()  # that of mmdet returns None
    return model


def ours(kind: str, **changes) -> nn.Module:
    return randomise(OURS[kind](**{**SMALL, **changes}))


def image() -> Tensor:
    return torch.randn(2, 3, *IMAGE, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def assert_same_maps(kind: str, theirs: dict[str, Tensor], maps: dict[int, Tensor]) -> str:
    """Load a converted state strictly into our model and compare it with the peer's maps.

    Args:
        maps: what the peer computes of `image()`, NCHW, by stage.

    Returns:
        the layout that was recognised.
    """
    found = convert(theirs)
    assert (found.architecture, found.whole) == (kind, False)
    model = OURS[kind](**SMALL, out_indices=tuple(maps)).eval()
    model.load_state_dict(found.state, strict=True)
    for ours, theirs in zip(model(image()), maps.values(), strict=True):
        scale = theirs.abs().max()
        assert scale > 0.5
        assert (ours - theirs).abs().max() < 1e-4 * scale
    return found.layout


def assert_round_trip(theirs: dict[str, Tensor], layout: str | None = None) -> None:
    """What was converted becomes theirs again, but for what had no place."""
    found = convert(theirs)
    back = export(found.state, layout or found.layout)
    kept = {n: t for n, t in theirs.items() if n not in found.dropped}
    assert back.keys() == kept.keys()
    for name, tensor in back.items():
        torch.testing.assert_close(tensor, kept[name], rtol=0, atol=0, msg=name)


def spatial_mlp_state() -> dict[str, Tensor]:
    """Swin-MLP by hand, from models/swin_mlp.py: a grouped 1x1 convolution instead of attention."""
    sizes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (WIDTH, 3, 4, 4),
        "patch_embed.proj.bias": (WIDTH,),
        "patch_embed.norm.weight": (WIDTH,),
        "patch_embed.norm.bias": (WIDTH,),
    }
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        c, tokens = WIDTH * 2**stage, WINDOW**2
        for block in range(depth):
            at = f"layers.{stage}.blocks.{block}."
            for norm in ("norm1", "norm2"):
                sizes |= {f"{at}{norm}.weight": (c,), f"{at}{norm}.bias": (c,)}
            sizes[at + "spatial_mlp.weight"] = (heads * tokens, tokens, 1)
            sizes[at + "spatial_mlp.bias"] = (heads * tokens,)
            sizes |= {at + "mlp.fc1.weight": (4 * c, c), at + "mlp.fc1.bias": (4 * c,)}
            sizes |= {at + "mlp.fc2.weight": (c, 4 * c), at + "mlp.fc2.bias": (c,)}
        if stage < 3:
            at = f"layers.{stage}.downsample."
            sizes |= {at + "reduction.weight": (2 * c, 4 * c)}
            sizes |= {at + "norm.weight": (4 * c,), at + "norm.bias": (4 * c,)}
    sizes |= {"norm.weight": (8 * WIDTH,), "norm.bias": (8 * WIDTH,)}
    return {name: torch.randn(size) for name, size in sizes.items()}
