"""Speed of eyeline's YOLOv3 beside OpenCV's DNN module and ultralytics' parts, with the same
weights. `bench.py` is the command.

OpenCV 4 reads a configuration and weights in the authors' format, written here. Of ultralytics'
package today's network of that name is another (3x3 where the paper has 1x1, no anchors), so its
own parts are put together to the paper's network; what it makes of a picture is compared, and
timed, up to the last convolutions, in both memory layouts, of which the faster counts. It is
imported if it is there, and nothing of it is needed.

Letters   K classes, N priors in all their cells, D detections.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eyeline.checkpoints.darknet import convolutions
from eyeline.inspection.profile import picture
from eyeline.nn.cells import moved
from table import Table, take_turns

sys.path.append(str(Path(__file__).parents[1] / "tests" / "parity"))
from darknet import write_weights, yolov3_cfg

MODELS = ("yolov3",)
SIDE, CLASSES = 416, 80
THRESHOLD, NMS = 0.25, 0.45
BARS = {"float32": 1.0, "fastest": 1.0}
# Pixels; probability. Both sides take fewer products than the definition, and round more.
BOX_TOLERANCE, SCORE_TOLERANCE = 0.05, 5e-4
NETWORK_TOLERANCE = 1e-3  # of single outputs of the network in float32
# Of the other precisions: the root mean square of what an output differs from float32's by, in
# standard deviations of that output over all priors; what has nothing to do with it has 1 or more.
# Random weights are far from bf16: ultralytics' parts are off by 0.21 in it, as ours are.
SPREAD_TOLERANCE = {"bf16": 0.3, "int8": 0.6}
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}  # of theirs
Calls = dict[str, Callable[[], object]]


def eyeline_model(name: str) -> Any:
    """Random weights, but as busy as trained ones: activations of unit size, some detections."""
    import eyeline

    torch.manual_seed(0)
    model: Any = eyeline.create_model(
        name, num_classes=CLASSES, convention="darknet", size=SIDE, score_threshold=THRESHOLD
    )
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for path, norm in norms.items():
        norm.momentum = 1.0
        if path.endswith("wide.norm"):  # the last of a block; at 1 rounding grows from each to next
            nn.init.constant_(norm.weight, 0.3)
    images = model.prepare([picture((SIDE, SIDE), i) for i in (0, 1)]).images
    with torch.no_grad():
        model.train().heads(images)
        outputs, _ = model.eval().heads(images)
        level = torch.tensor([0.0] * 4 + [-7.0] + [-4.0] * CLASSES)  # moves, objectness, classes
        spread = torch.tensor([0.5] * 4 + [2.5] + [2.0] * CLASSES)
        for scale, said in zip(model.scales, outputs[::-1], strict=True):
            values = said.unflatten(1, (-1, model.per_cell)).flatten(0, 1).flatten(1)
            factor = spread.repeat(model.per_cell) / values.std(0)
            scale.output.weight.mul_(factor[:, None, None, None])
            shifted = (scale.output.bias - values.mean(0)) * factor
            scale.output.bias.copy_(shifted + level.repeat(model.per_cell))
    return model


class OpenCV:
    """The same network as OpenCV's DNN module reads it."""

    def __init__(self, model: Any, threads: int) -> None:
        import cv2

        cv2.setNumThreads(threads)
        with tempfile.TemporaryDirectory() as folder:
            cfg, weights = Path(folder, "yolov3.cfg"), Path(folder, "yolov3.weights")
            cfg.write_text(yolov3_cfg(CLASSES, SIDE))
            order = [(conv, norm) for conv, norm, _ in convolutions(model)]
            write_weights(weights, model.state_dict(), order)
            self.net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
        self.net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        self.whole = cv2.dnn.DetectionModel(self.net)
        self.whole.setInputParams(1 / 255, (SIDE, SIDE))
        self.blob = lambda image: cv2.dnn.blobFromImage(image, 1 / 255)

    def boxes(self, image: np.ndarray) -> Tensor:
        """Of all priors centre, sides, objectness and scores, (N, 5 + K), finest scale first."""
        self.net.setInput(self.blob(image))
        found = self.net.forward(self.net.getUnconnectedOutLayersNames())
        return torch.from_numpy(
            np.concatenate([rows.reshape(-1, 5 + CLASSES) for rows in found][::-1])
        )

    def __call__(self, image: np.ndarray) -> tuple[Any, ...]:
        return self.whole.detect(image, THRESHOLD, NMS)  # type: ignore[no-any-return]


def ultralytics_network(
    model: Any, layout: torch.memory_format
) -> tuple[nn.Module, Callable[[Tensor], list[Tensor]]]:
    """The paper's network of ultralytics' parts, its weights in this layout, and what gives its
    three outputs (B, A (5 + K), H, W), finest scale first."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())  # where it writes settings
    from ultralytics.nn.tasks import DetectionModel

    body: list[list[Any]] = [[-1, 1, "Conv", [32, 3, 1]]]
    for width, depth in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        body.append([-1, 1, "Conv", [width, 3, 2]])
        body.append([-1, depth, "Bottleneck", [width, True, 1, [1, 3]]])
    said, head = [], []
    for width, skip in ((1024, None), (512, 8), (256, 6)):
        if skip is not None:
            head += [
                [-3, 1, "Conv", [width // 2, 1, 1]],
                [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            ]
            head.append([[-1, skip], 1, "Concat", [1]])
        for _ in range(3):
            head += [[-1, 1, "Conv", [width // 2, 1, 1]], [-1, 1, "Conv", [width, 3, 1]]]
        head.append([-1, 1, "nn.Conv2d", [width, model.per_cell * (5 + CLASSES), 1]])
        said.append(len(body) + len(head) - 1)
    cfg = {"nc": CLASSES, "activation": "torch.nn.LeakyReLU(0.1)", "backbone": body, "head": head}
    theirs = DetectionModel(cfg, verbose=False).eval()
    pairs = zip(
        (m for m in theirs.modules() if isinstance(m, nn.Conv2d)),
        (model.get_submodule(conv) for conv, _, _ in convolutions(model)),
        strict=True,
    )
    for layer, source in pairs:
        layer.load_state_dict(source.state_dict())
    norms = [
        [m for m in side.modules() if isinstance(m, nn.BatchNorm2d)] for side in (theirs, model)
    ]
    for norm, source in zip(*norms, strict=True):
        norm.load_state_dict(source.state_dict())
        norm.eps = source.eps
    outputs: list[Tensor] = []
    for i in said:
        theirs.model[i].register_forward_hook(lambda _m, _i, out: outputs.append(out))

    def run(images: Tensor) -> list[Tensor]:
        outputs.clear()
        theirs(images)
        return outputs[::-1]

    return theirs.to(memory_format=layout), run


def largest(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def spread_off(said: list[Tensor], expected: list[Tensor]) -> float:
    """How far outputs (B, N_l, 5 + K) are from those in float32, as SPREAD_TOLERANCE counts it."""
    found, right = torch.cat(said, 1).float(), torch.cat(expected, 1)
    return float(((found - right) / right.std(1, keepdim=True)).square().mean().sqrt())


def bench(table: Table, name: str, quick: bool) -> bool:
    """Measure one model; False where outputs differ."""
    from eyeline import Predictor, calibrate

    model, size = eyeline_model(name), (SIDE, SIDE)
    table.section(f"{name}, Darknet-53, {SIDE}x{SIDE}", "OpenCV")
    image = picture(size, 0)
    options: dict[str, dict[str, Any]] = {"float32": {}}
    if torch.cpu._is_avx512_bf16_supported():
        options["bf16"] = {}
    if torch.cpu._is_vnni_supported():
        options["int8"] = {"ranges": calibrate(model, [[picture(size, i)] for i in range(3)])}
    predictors = {
        precision: Predictor(
            model, device="cpu", precision=precision, score_threshold=THRESHOLD, **more
        )
        for precision, more in options.items()
    }
    rounds = 3 if quick else 9
    equal = precisions(table, predictors, image)
    equal &= against_opencv(table, model, predictors, image, rounds)
    equal &= against_ultralytics(table, name, model, predictors, image, rounds)
    return equal


@torch.inference_mode()
def precisions(table: Table, predictors: dict[str, Any], image: Tensor) -> bool:
    """Each precision beside float32; False where it is further off than it may be."""
    equal = True
    images = predictors["float32"].model.prepare([image]).images
    expected = predictors["float32"].model.heads(images)[0]
    count = len(predictors["float32"](image))
    for precision in list(predictors)[1:]:
        off = spread_off(predictors[precision].model.heads(images)[0], expected)
        near = off < SPREAD_TOLERANCE[precision]
        equal &= near
        table.note(
            f"{precision} beside float32: {'near' if near else 'TOO FAR'} ({off:.2g} of the "
            f"outputs' spread); {len(predictors[precision](image))} detections, {count} in float32"
        )
    return equal


def against_opencv(
    table: Table, model: Any, predictors: dict[str, Any], image: Tensor, rounds: int
) -> bool:
    """From a picture to detections; False where outputs differ."""
    try:
        opencv = OpenCV(model, table.threads)
    except (ImportError, AttributeError) as error:
        table.note(f"no rows against OpenCV 4: {error}")
        return True
    fast = predictors["float32"].model
    with torch.inference_mode():
        said, anchors = fast.heads(fast.prepare([image]).images)
        values = torch.cat(said, 1)[0]
        boxes = moved(values[:, :4], torch.cat(anchors), fast.strides_of(anchors))
        scores = values[:, 4:5].sigmoid() * values[:, 5:].sigmoid()
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    rows = opencv.boxes(pixels)
    centre, sides = rows[:, :2] * SIDE, rows[:, 2:4] * SIDE
    theirs = torch.cat([centre - sides / 2, centre + sides / 2], 1)
    told = scores.amax(1) > SCORE_TOLERANCE
    box = float((theirs - boxes)[told].abs().max())
    score = float((rows[:, 5:] - scores).abs().max())
    same = box < BOX_TOLERANCE and score < SCORE_TOLERANCE
    table.note(
        f"scores of all {len(told)} priors, and boxes of the {int(told.sum())} whose best score is "
        f"above {SCORE_TOLERANCE:g}, float32: {'equal' if same else 'they differ'} ({box:.2g} "
        f"pixels, {score:.2g} of scores); after NMS theirs {len(opencv(pixels)[0])}, ours "
        f"{len(predictors['float32'](image))}"
    )
    calls: Calls = {"OpenCV": lambda: opencv(pixels)}
    for precision, predictor in predictors.items():
        calls[precision] = lambda predictor=predictor: predictor(image)
    seconds = take_turns(calls, rounds, table.clock)
    for precision in predictors:
        usual = precision == "float32"
        what = "float32, Predictor" if usual else f"{precision}, Predictor; theirs float32"
        bar = BARS["float32" if usual else "fastest"]
        table.row(f"inference {what}", seconds["OpenCV"], seconds[precision], bar=bar)
    return same


def against_ultralytics(
    table: Table, name: str, model: Any, predictors: dict[str, Any], image: Tensor, rounds: int
) -> bool:
    """The network alone, theirs in the faster of two layouts; False where outputs differ."""
    try:
        sides = {key: ultralytics_network(model, layout) for key, layout in LAYOUTS.items()}
    except ImportError as error:
        table.note(f"no rows against ultralytics: {error}")
        return True
    table.section(f"{name}, Darknet-53 alone, {SIDE}x{SIDE}", "ultralytics")
    infer = torch.inference_mode()
    model.to(memory_format=torch.channels_last)  # as training does
    images = model.prepare([image]).images
    given = {key: images.contiguous(memory_format=layout) for key, layout in LAYOUTS.items()}

    def outputs(key: str) -> list[Tensor]:
        said = infer(sides[key][1])(given[key])
        return [out.movedim(1, -1).reshape(1, -1, 5 + CLASSES) for out in said]

    def turns(ours: Calls) -> tuple[str, dict[str, list[float]]]:
        """Seconds of ours and of theirs, and the layout in which theirs is faster."""
        theirs: Calls = {key: lambda k=key: infer(sides[k][1])(given[k]) for key in LAYOUTS}
        seconds = take_turns(theirs | ours, rounds, table.clock)
        return min(LAYOUTS, key=lambda key: statistics.median(seconds[key])), seconds

    expected, equal = outputs("NCHW"), True
    found = {
        "model": infer(model.heads)(images)[0],
        "Predictor": infer(predictors["float32"].model.heads)(images)[0],
        "ultralytics in NHWC": outputs("NHWC"),
    }
    for what, said in found.items():
        error = largest(said, expected)
        same = error < NETWORK_TOLERANCE
        equal &= same
        table.note(f"outputs of {what}: {'equal' if same else 'they differ'} ({error:.2g})")
    best, seconds = turns({"ours": lambda: infer(model.heads)(images)})
    what = "network float32, as trained; theirs"
    table.row(f"{what} {best}", seconds[best], seconds["ours"], bar=1.0)

    for key, (network, _) in sides.items():
        network.fuse(verbose=False)
        network.to(memory_format=LAYOUTS[key])
    calls: Calls = {
        precision: lambda m=predictor.model: infer(m.heads)(images)
        for precision, predictor in predictors.items()
    }
    half = calls.pop("bf16", None)
    best, seconds = turns(calls)
    what = "network float32, fused, Predictor's; theirs"
    table.row(f"{what} {best}", seconds[best], seconds["float32"], bar=1.0)
    if "int8" in predictors:
        what = "network int8, Predictor's; theirs float32"
        table.row(f"{what} {best}", seconds[best], seconds["int8"], bar=1.0)
    if half is not None:
        for key, (network, _) in sides.items():
            network.to(torch.bfloat16)
            given[key] = given[key].to(torch.bfloat16)
        off = max(spread_off(outputs(key), expected) for key in LAYOUTS)
        near = off < SPREAD_TOLERANCE["bf16"]
        equal &= near
        table.note(
            f"theirs in bf16 beside float32: {'near' if near else 'TOO FAR'} ({off:.2g} of the "
            "outputs' spread)"
        )
        best, seconds = turns({"ours": half})
        what = "network bf16, fused, Predictor's; theirs"
        table.row(f"{what} {best}", seconds[best], seconds["ours"], bar=1.0)
    return equal
