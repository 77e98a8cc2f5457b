"""Parts of a model that do not learn."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from eyeline.checkpoints.source import begins
from eyeline.errors import EyelineError


def freeze(model: nn.Module, parts: Sequence[str]) -> int:
    """Freeze what has these names or stands below them; gives the number of frozen parameters.

    Its parameters get `requires_grad=False`, and its norms with running statistics stay in eval
    mode, whatever `model.train()` is called with: what has been learnt is used as it is.

    Args:
        parts: names of parts or parameters, "backbone", "backbone.layer1", "head.fc1.bias".

    Raises:
        EyelineError: a name that begins none of the model's; nothing left to learn.
    """
    known = _names(model)
    for part in parts:
        if part.rstrip(".") not in known:
            near = get_close_matches(part, known, n=1)
            top = ", ".join(name for name, _ in model.named_children())
            hint = f"did you mean {near[0]}?" if near else f"there are: {top}"
            raise EyelineError(f"freeze: the model has no part {part!r}; {hint}")
    for name, parameter in model.named_parameters():
        if begins(name, parts):
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and _is_frozen(name, module, parts):
            module.train = MethodType(_stay, module)  # type: ignore[method-assign]
            module.eval()
    if parts and not any(p.requires_grad for p in model.parameters()):
        raise EyelineError(f"freeze: {', '.join(parts)} leaves nothing to train")
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def _names(model: nn.Module) -> list[str]:
    """Of every part and every tensor."""
    return [*(name for name, _ in model.named_modules() if name), *model.state_dict()]


def _is_frozen(name: str, norm: nn.Module, parts: Sequence[str]) -> bool:
    """Lies it in a frozen part, or are its parameters named one by one?"""
    own = [f"{name}.{key}" for key, _ in norm.named_parameters()]
    return begins(name, parts) or (bool(own) and all(begins(key, parts) for key in own))


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """`train` of a frozen norm: it stays in eval mode."""
    return nn.Module.train(module, False)
