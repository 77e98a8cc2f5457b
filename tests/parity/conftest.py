from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references import PICTURES
from torch import Tensor


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[Tensor]:
    def read_picture(name: str) -> Tensor:
        with Image.open(shared_data / "tiny_coco" / "val2017" / f"{name}.jpg") as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    return [read_picture(name) for name in PICTURES]
