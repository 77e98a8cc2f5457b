"""Pictures in the middle of a grey square: boxes are where they were, whoever looks."""

from __future__ import annotations

import pytest
import torch

from eyeline.export.graph import capture
from eyeline.inspection.heat import enlarge
from eyeline.inspection.xray import xray
from eyeline.registry import create_model

IMAGE = torch.rand(3, 48, 96, generator=torch.Generator().manual_seed(0))
TARGET = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model(
        "yolov2", num_classes=2, backbone="resnet18", size=96, neck_width=64, convention="darknet",
        score_threshold=0.001,
    ).eval()  # fmt: skip


def test_a_batch_says_where_its_pictures_begin(model):
    batch = model.prepare([IMAGE, torch.rand(3, 90, 45)])
    assert batch.offsets.tolist() == [[24, 0], [0, 24]]
    torch.testing.assert_close(batch.inside(0), IMAGE)
    assert batch.inside(1).shape == (3, 96, 48)
    assert (batch.images[1, :, :, :24] == 0.5).all()
    assert batch.to("cpu").offsets is not None


def test_the_xray_is_in_the_squares_pixels(model):
    x = xray(model, IMAGE, TARGET)
    last = x.stages[-1]
    assert x.linked and len(x.prediction["boxes"])
    torch.testing.assert_close(x.to_picture(last.boxes[last.valid]), x.prediction["boxes"])
    expected = torch.tensor([[8.0, 32, 40, 64]])
    assert torch.equal(x.to_network(TARGET["boxes"]), expected)
    assert torch.equal(x.learning.assignment.boxes, expected)
    assert x.anchors[0].view(3, 3, 5, 4)[1, 1, :, 1::2].mean() == 48  # of the middle cell


def test_a_map_lies_over_its_picture(model):
    """The square's middle is the picture's, and what is grey is left out."""
    cam = torch.zeros(12, 12)
    cam[3] = 1  # the first row of the picture's own
    over = enlarge(cam, (48, 96), model.prepare([IMAGE]))
    assert over.shape == (48, 96)
    assert over[:8].mean() > 0.7 and over[16:].max() == 0


def test_a_letter_box_is_a_part_of_the_exported_graph(model):
    graph = capture(model).module()
    for size in ((48, 96), (120, 50)):
        picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        with torch.no_grad():
            found, expected = graph(picture[None]), model([picture])[0]
        count = int(found["count"][0])
        assert count == len(expected["boxes"]) > 5
        torch.testing.assert_close(
            found["boxes"][0, :count], expected["boxes"], atol=1e-3, rtol=1e-4
        )
