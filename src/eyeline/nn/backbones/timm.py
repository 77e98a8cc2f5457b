"""Backbones of timm, the extra `timm`: backbone="timm:convnext_tiny"."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from eyeline.errors import EyelineError

PREFIX = "timm:"
STRIDES = (4, 8, 16, 32)  # of C2 .. C5


class TimmBackbone(nn.Module):
    """(B, in_channels, H, W) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32, by a model of timm.

    Args:
        name: as timm calls it, without the prefix.
        norm: "batch" leaves the model as it is, whatever norms it has; "frozen" freezes its batch
            norms.
        pretrained: True downloads timm's weights, a state dict of the classifier is taken instead.

    Raises:
        EyelineError: timm is not installed or knows no such model; it has no feature maps at the
            four strides; it has no batch norm to freeze.
    """

    def __init__(
        self,
        name: str,
        norm: str = "batch",
        in_channels: int = 3,
        pretrained: bool | Mapping[str, Tensor] = False,
    ) -> None:
        super().__init__()
        timm = _timm()
        if not timm.is_model(name):
            near = get_close_matches(name, timm.list_models(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise EyelineError(f"timm has no model called {name!r}{hint}")
        options: dict[str, Any] = {"in_chans": in_channels, "pretrained": bool(pretrained)}
        if isinstance(pretrained, Mapping):
            options["pretrained_cfg_overlay"] = {"state_dict": dict(pretrained)}
        try:
            whole = timm.create_model(name, features_only=True, **options)
            reductions = whole.feature_info.reduction()
            last = [max(i for i, r in enumerate(reductions) if r == s) for s in STRIDES]
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise EyelineError(
                f"timm's {name} cannot be a backbone: it must give feature maps at the strides "
                f"{', '.join(map(str, STRIDES))}; {_reason(error)}"
            ) from None
        except OSError as error:  # of the hub
            raise EyelineError(f"timm's weights of {name} cannot be had: {_reason(error)}") from None
        # Built once more without the levels above and between, which no gradient would reach.
        state = whole.state_dict()
        self.body = timm.create_model(
            name, features_only=True, out_indices=last, in_chans=in_channels
        )
        self.body.load_state_dict({k: state[k] for k in self.body.state_dict()})
        self.channels: list[int] = self.body.feature_info.channels()
        self.channels_last = getattr(self.body, "output_fmt", None) == "NHWC"
        self.name = name
        if norm == "frozen":
            self._freeze_norms()
        elif norm != "batch":
            raise EyelineError(f"norm={norm!r} is for our own backbones; timm's {name} has its own")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.body(x)
        if str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC"):
            maps = [level.permute(0, 3, 1, 2) for level in maps]
        return list(maps)

    def _freeze_norms(self) -> None:
        if not any(isinstance(module, nn.BatchNorm2d) for module in self.body.modules()):
            raise EyelineError(f"timm's {self.name} has no batch norm to freeze; leave norm= out")
        self.body = importlib.import_module("timm.layers").freeze_batch_norm_2d(self.body)


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise EyelineError(
            f"backbones of timm need that package ({error}); install it: pip install "
            "'eyeline[timm]'"
        ) from None


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
