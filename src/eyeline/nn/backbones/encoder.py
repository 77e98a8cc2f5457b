"""What every backbone can be called for."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Encoder(nn.Module):
    """A class has `_maps`, all its maps from C1 at stride 2 on."""

    def forward(self, x: Tensor) -> Any:
        """[C2, C3, C4, C5], at strides 4, 8, 16, 32 or less."""
        return self._maps(x)[1:]

    def stages(self, x: Tensor) -> Any:
        """[C1, C2, C3, C4, C5], of `stage_channels`."""
        return self._maps(x)

    def _maps(self, x: Tensor) -> Any:
        raise NotImplementedError
