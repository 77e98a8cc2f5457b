"""Maps over pictures: colours, places."""

from __future__ import annotations

import pytest
import torch

from eyeline.inspection.heat import enlarge, heat, overlay
from eyeline.registry import create_model


def lightness(colours: torch.Tensor) -> torch.Tensor:
    """CIE L* of sRGB colours (3, N)."""
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    y = torch.tensor([0.2126, 0.7152, 0.0722]) @ linear
    return torch.where(y > 0.008856, 116 * y ** (1 / 3) - 16, 903.3 * y)


def test_lightness_grows_evenly() -> None:
    colours = heat(torch.linspace(0, 1, 101))
    assert colours.shape == (3, 101) and colours.min() >= 0 and colours.max() <= 1
    steps = lightness(colours).diff()
    assert steps.min() > 0.4 and steps.max() < 1.3  # of about 80 in all
    assert (colours[:, 0] < 0.35).all() and (colours[:2, -1] > 0.85).all()  # dark .. yellow


def test_heat_stays_in_range() -> None:
    assert heat(torch.tensor([-1.0, 2.0])).equal(heat(torch.tensor([0.0, 1.0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_overlay_shows_where(dtype: torch.dtype) -> None:
    cam = torch.zeros(2, 2)
    cam[0, 1] = 1
    given = (cam * 255).to(dtype) if dtype == torch.uint8 else cam
    for image in (torch.full((3, 40, 60), 0.5), torch.full((3, 40, 60), 128, dtype=torch.uint8)):
        shown = overlay(image, given)
        assert shown.shape == (3, 40, 60) and shown.dtype == torch.uint8
        light = lightness(shown.flatten(1) / 255).view(40, 60)
        row, column = divmod(int(light.argmax()), 60)
        assert row <= 10 and column >= 45


def test_enlarge_is_linear_between_centres() -> None:
    row = enlarge(torch.tensor([[0.0, 1.0]]), (4, 8))
    assert row.shape == (4, 8)
    expected = torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    torch.testing.assert_close(row, expected.expand(4, 8))


@pytest.mark.parametrize("stride", [8, 32, 64, 128])
def test_padding_is_left_out_and_strides_are_kept(stride: int) -> None:
    """A map whose cells say where they are: in the picture, each lies where it was."""
    model = create_model("retinanet", num_classes=1, backbone="resnet18", size=96, fpn_channels=8)
    batch = model.prepare([torch.rand(3, 50, 80)])  # to 96 x 153, padded to 96 x 160
    assert batch.images.shape[2:] == (96, 160) and batch.sizes.tolist() == [[96, 153]]
    columns = (torch.arange(-(-160 // stride)) + 0.5) * stride / 256
    cam = columns.expand(-(-96 // stride), -1)
    pixels = enlarge(cam, (50, 80), batch)
    assert pixels.shape == (50, 80)
    there = (torch.arange(80) + 0.5) / 80 * 153 / 256
    between = (there >= columns[0]) & (there <= columns[-1])
    assert between.sum() >= 10
    error = (pixels - there).abs()[:, between].max()
    assert error < 1.5 / 256  # a pixel or so: the border's sample is repeated
