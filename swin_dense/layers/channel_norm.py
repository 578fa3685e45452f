"""LayerNorm over the channels of maps that come as convolutions give them."""

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Norm the channels of each place of a map (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
