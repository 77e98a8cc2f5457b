"""Backbones of timm, the extra `timm`: backbone="timm:convnext_tiny"."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones.encoder import Encoder

PREFIX = "timm:"
STRIDES = (4, 8, 16, 32)  # of C2 .. C5


class TimmBackbone(Encoder):
    """(B, in_channels, H, W) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32, by a model of timm.

    Args:
        name: as timm calls it, without the prefix.
        norm: "batch" leaves the model as it is, whatever norms it has; "frozen" freezes its batch
            norms.
        finest: 2: it has C1 also, which `stages` gives.

    Raises:
        EyelineError: timm is not installed or knows no such model; it has no feature maps at the
            strides; it has no batch norm to freeze.
    """

    def __init__(
        self, name: str, norm: str = "batch", in_channels: int = 3, finest: int = 4
    ) -> None:
        super().__init__()
        timm = _timm()
        if not timm.is_model(name):
            near = get_close_matches(name, timm.list_models(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise EyelineError(f"timm has no model called {name!r}{hint}")
        if norm not in ("batch", "frozen"):
            raise EyelineError(f"norm={norm!r} is for our own backbones; timm's {name} has its own")
        self.name, self.in_channels, self.finest = name, in_channels, finest
        strides = (2, *STRIDES) if finest == 2 else STRIDES
        try:
            reductions = list(self._create().feature_info.reduction())
            # Of several at a stride the last; building without the others leaves out layers that
            # no gradient would reach.
            self.levels = [len(reductions) - 1 - reductions[::-1].index(s) for s in strides]
            self.body = self._create(out_indices=self.levels)
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise EyelineError(
                f"timm's {name} cannot be a backbone: it must give feature maps at the strides "
                f"{', '.join(map(str, strides))} ({_reason(error)})"
            ) from None
        self.stage_channels: list[int] = list(self.body.feature_info.channels())
        self.channels = self.stage_channels[-len(STRIDES) :]
        if norm == "frozen":
            if not any(isinstance(module, nn.BatchNorm2d) for module in self.body.modules()):
                raise EyelineError(f"timm's {name} has no batch norm to freeze; leave norm= out")
            self.body = importlib.import_module("timm.layers").freeze_batch_norm_2d(self.body)

    def load_pretrained(self, weights: Mapping[str, Tensor] | None = None) -> list[str]:
        """Fill it with a classifier's weights, timm's own of that model by default (downloaded);
        gives the names that were filled, which are all.

        Raises:
            EyelineError: they cannot be had, or do not fit.
        """
        options: dict[str, Any] = {"pretrained": True}
        if weights is not None:
            options["pretrained_cfg_overlay"] = {"state_dict": dict(weights)}
        states = []
        try:
            for given in ({}, options):
                with torch.random.fork_rng([]):
                    torch.manual_seed(0)
                    states.append(self._create(out_indices=self.levels, **given).state_dict())
            before, source = states
            wanted = self.body.state_dict()
            # timm does not say what a file lacks, but that stays as it was drawn.
            lacking = [k for k in wanted if source[k].ndim > 1 and source[k].equal(before[k])]
            if lacking:
                raise ValueError(f"{len(lacking)} are missing, such as {lacking[0]}")
            self.body.load_state_dict({key: source[key] for key in wanted})
        except Exception as error:  # of the hub, of the network, of the file's names and shapes
            raise EyelineError(
                f"timm's {self.name} cannot be filled with weights: {_reason(error)}"
            ) from error
        return list(wanted)

    def _create(self, **options: Any) -> Any:
        create = _timm().create_model
        options |= {"features_only": True, "in_chans": self.in_channels}
        try:
            return create(self.name, strict_img_size=False, **options)  # swin: any size
        except TypeError:
            return create(self.name, **options)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self._maps(x)[-len(STRIDES) :]

    def _maps(self, x: Tensor) -> list[Tensor]:
        """From C1, at stride 2, where it was built with `finest=2`."""
        maps = self.body(x)
        if str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC"):
            maps = [level.permute(0, 3, 1, 2) for level in maps]
        return list(maps)


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
