"""Self-attention on tokens, for the transformer and for the coarse levels of the U-Net."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class SelfAttention(nn.Module):
    """Every token reads every token of its row: `(B, T, width)` to the same; order plays no part.

    Fused kernels have no second derivative and no forward mode; for those, run the network under
    `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    Raises: ValueError where `heads` does not divide `width`.
    Source: Vaswani et al. 2017, Sec. 3.2. [vaswani2017attention]
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.heads = heads
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` is `(B, T, width)`, and so is the result."""
        query, key, value = self.read(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.write(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return out
