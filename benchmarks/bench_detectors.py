"""Speed and memory of eyeline's detectors beside torchvision's, with the same weights.

Both sides run in one process and take turns; peak memory is measured in a process each.
`bench.py` is the command.

Letters   K classes, N detections.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.inspection.profile import objects, picture
from table import Table, take_turns

MODELS = ("faster_rcnn", "mask_rcnn", "retinanet", "ssd300")
# What the ratios are to reach: float32, the fastest precision, a training step in float32.
BARS: dict[str, dict[str, float]] = {
    "faster_rcnn": {"float32": 1.6, "fastest": 7.0, "training": 1.7},
    "mask_rcnn": {"float32": 1.6, "fastest": 7.0},
    "retinanet": {"float32": 1.4, "fastest": 6.0},
    "ssd300": {"float32": 1.3, "fastest": 5.0, "training": 1.0},
}
SIZES = dict.fromkeys(MODELS, (800, 1066)) | {"ssd300": (480, 640)}  # of a picture
THRESHOLDS = dict.fromkeys(MODELS, 0.05) | {"ssd300": 0.01}  # torchvision's, of scores
# Learned before, and kept: torchvision's default where the backbone has learned weights.
FROZEN = re.compile(r"backbone\.((body\.)?(conv1|bn1|layer1)|conv1_\d|features\.[02])\.")
SLOTS = 91  # COCO's category ids as torchvision keeps them; 0 is background, or stands unused
BOX_TOLERANCE, SCORE_TOLERANCE = 0.01, 1e-4  # pixels; probability


# ---- the two sides


def torchvision_model(name: str, weights: str | None) -> nn.Module:
    """torchvision's detector with a checkpoint of its own, or with enlivened weights."""
    from torchvision.models import detection
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    if name == "ssd300":
        model = detection.ssd300_vgg16(weights_backbone=None, num_classes=SLOTS).eval()
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_(not FROZEN.match(parameter_name))
        if weights is None:
            enliven(model, [], name)
        else:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return model
    kinds = {
        "faster_rcnn": detection.FasterRCNN,
        "mask_rcnn": detection.MaskRCNN,
        "retinanet": detection.RetinaNet,
    }
    build, options = kinds[name], {}
    if name == "retinanet":
        options = dict(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, **options
    )  # three of five stages trainable, as by default
    model = build(backbone, num_classes=SLOTS).eval()
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    for norm in norms:
        norm.eps = 0.0  # as torchvision sets it for its COCO weights
    if weights is not None:
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    else:
        enliven(model, norms, name)
    return model


@torch.no_grad()
def enliven(model: nn.Module, norms: list[nn.Module], name: str) -> None:
    """Give random weights what training would: activations of unit size, and some detections.

    A freshly initialised network finds nothing, and would be timed without its last stage.
    """

    def measure(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    for path, module in model.named_modules():
        if path.endswith("bn3"):  # the last of a block; at 1 rounding grows from block to block
            module.weight.fill_(0.3)
    level, spread = torch.zeros(SLOTS), 3.0  # of logits: slot 0 is background ...
    if name == "retinanet":  # ... or no category
        layers, spread = [model.head.classification_head.cls_logits], 0.7
        level = torch.full((SLOTS,), -5.0)
        level[0] = -100.0
    elif name == "ssd300":
        layers, spread = list(model.head.classification_head.module_list), 2.0
        level[0] = 10.5
    else:
        layers = [model.roi_heads.box_predictor.cls_score]
        level[0] = 9.0
    outputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    hooks += [
        layer.register_forward_hook(lambda m, _i, out: outputs[m].append(out)) for layer in layers
    ]
    model([picture(SIZES[name], 0) / 255])
    for hook in hooks:
        hook.remove()
    for layer, made in outputs.items():
        logits = torch.cat([out.movedim(1, -1).flatten(0, -2) for out in made])  # (positions, K')
        found = logits.std(0, correction=0)
        factor = torch.where(found > 0, spread / found, 1.0)  # a map of one cell has no spread
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        wanted = level.repeat(len(factor) // SLOTS)
        layer.bias.copy_((layer.bias - logits.mean(0)) * factor + wanted)


def eyeline_model(name: str, weights: str | dict[str, Tensor]) -> nn.Module:
    """eyeline's detector with torchvision's weights; 90 classes, so that no slot is lost."""
    import eyeline

    model = eyeline.create_model(name, weights=weights, num_classes=SLOTS - 1).eval()
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(not FROZEN.match(parameter_name))
    return model


def for_torchvision(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{**t, "labels": t["labels"] + 1} for t in targets]


def training_step(
    model: nn.Module, size: tuple[int, int], targets: list[dict[str, Tensor]]
) -> Callable[[], object]:
    """One step of SGD on two pictures. The learning rate is 0, so that all steps are alike."""
    images = [picture(size, 1) / 255, picture(size, 2) / 255]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step() -> dict[str, float]:
        model.train()
        optimizer.zero_grad()
        losses = model(images, targets)
        sum(losses.values()).backward()
        optimizer.step()
        model.eval()
        return {key: loss.item() for key, loss in losses.items()}

    return step


# ---- measuring


def differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    """Empty where each detection of either side has its equal on the other, else what differs."""
    box = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(2)  # (N, N')
    score = (ours["scores"][:, None] - theirs["scores"]).abs()
    same = ours["labels"][:, None] == theirs["labels"]
    equal = same & (box < BOX_TOLERANCE) & (score < SCORE_TOLERANCE)
    lost, added = int((~equal.any(0)).sum()), int((~equal.any(1)).sum())
    if lost == added == 0 and len(box):
        return ""
    return f"{lost} of {len(theirs['boxes'])} detections lost, {added} of {len(box)} added"


def peak_memory(name: str, weights: str, threads: int, side: str, what: str) -> float:
    """Peak memory in GiB of a process that does only that."""
    command = [sys.executable, __file__, name, weights, str(threads), side, what]
    return float(subprocess.check_output(command).splitlines()[-1])


def child(name: str, weights: str, threads: str, side: str, what: str) -> None:
    """Do one thing three times on one side, and print the peak of this process's memory in GiB."""
    torch.set_num_threads(int(threads))
    size = SIZES[name]
    targets = [objects(size, seed, SLOTS - 1, masks=True) for seed in (1, 2)]
    if side == "torchvision":
        model, targets = torchvision_model(name, weights), for_torchvision(targets)
    else:
        model = eyeline_model(name, weights)
    if what == "training":
        call = training_step(model, size, targets)
    elif what == "Predictor" and side == "eyeline":
        from eyeline import Predictor

        predictor, image = Predictor(model, device="cpu"), picture(size, 0)
        del model
        call = lambda: predictor(image)  # noqa: E731
    else:
        call = torch.inference_mode()(lambda: model([picture(size, 0) / 255]))
    for _ in range(3):
        call()
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """In GiB. On Linux not ru_maxrss, which begins with the peak of the process that forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**20
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum / 2**20 / (1024 if sys.platform == "darwin" else 1)  # macOS: bytes


# ---- the rows


def bench(table: Table, name: str, weights: str | None, quick: bool) -> bool:
    """Measure one model; False where outputs differ."""
    from eyeline import Predictor, calibrate

    theirs = torchvision_model(name, weights)
    ours = eyeline_model(name, theirs.state_dict())
    frozen = [
        sum(p.numel() for p in model.parameters() if not p.requires_grad)
        for model in (theirs, ours)
    ]
    assert frozen[0] == frozen[1] > 0, f"the sides freeze {frozen} parameters"
    bars, size = BARS[name], SIZES[name]
    network = "VGG16" if name == "ssd300" else "ResNet-50 FPN"
    table.section(f"{name}, {network}, {size[0]}x{size[1]}")

    image = picture(size, 0)
    options: dict[str, dict[str, Any]] = {"float32": {}}
    if torch.cpu._is_avx512_bf16_supported():
        options["bf16"] = {}
    if torch.cpu._is_vnni_supported():
        options["int8"] = {"ranges": calibrate(ours, [[picture(size, i)] for i in range(3)])}
    predictors = {
        precision: Predictor(
            ours, device="cpu", precision=precision, score_threshold=THRESHOLDS[name], **more
        )
        for precision, more in options.items()
    }

    expected = torch.inference_mode()(theirs)([image / 255])[0]
    expected["labels"] = expected["labels"] - 1
    found = predictors["float32"](image)
    outputs = {
        "model": torch.inference_mode()(ours)([image / 255])[0],
        "Predictor": {"boxes": found.boxes, "scores": found.scores, "labels": found.labels},
    }
    equal = True
    for what, output in outputs.items():
        difference = differences(output, expected)
        equal &= not difference
        table.note(f"outputs of {what}, float32: {difference or 'equal'}")

    @torch.inference_mode()
    def torchvision_autocast() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return theirs([image / 255])

    calls = {
        "torchvision": torch.inference_mode()(lambda: theirs([image / 255])),
        "model": torch.inference_mode()(lambda: ours([image / 255])),
    }
    for precision, predictor in predictors.items():
        calls[precision] = lambda predictor=predictor: predictor(image)
    if "bf16" in predictors:
        calls["autocast"] = torchvision_autocast
    seconds = take_turns(calls, 3 if quick else 9, table.clock)
    usual = seconds["torchvision"]
    table.row("inference float32, model(images)", usual, seconds["model"])
    table.row("inference float32, Predictor", usual, seconds["float32"], bar=bars["float32"])
    for precision in list(predictors)[1:]:
        fastest = bars["fastest"] if precision == list(predictors)[-1] else None
        what = f"inference {precision}, Predictor; theirs float32"
        table.row(what, usual, seconds[precision], bar=fastest)
    if "bf16" in predictors:
        table.row(
            "inference bf16, Predictor; theirs autocast", seconds["autocast"], seconds["bf16"]
        )

    targets = [objects(size, seed, SLOTS - 1, masks=True) for seed in (1, 2)]
    steps = {
        "torchvision": training_step(theirs, size, for_torchvision(targets)),
        "eyeline": training_step(ours, size, targets),
    }
    seconds = take_turns(steps, 1 if quick else 5, table.clock)
    table.row(
        "training step float32, batch 2", seconds["torchvision"], seconds["eyeline"],
        bar=bars.get("training"),
    )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "weights.pth"))
        torch.save(theirs.state_dict(), path)
        for what in ("inference", "Predictor", "training"):
            peaks = [
                [peak_memory(name, path, table.threads, side, what)]
                for side in ("torchvision", "eyeline")
            ]
            table.row(f"peak memory, {what} (process)", *peaks, unit="GiB", bar=1.0)
    return equal


if __name__ == "__main__":  # as `peak_memory` calls it
    child(*sys.argv[1:])
