"""Small random logits and labels, and what the slow twins of segmentation losses share."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st


def make(seed, pictures=2, classes=3, height=4, width=5, ignored=0.2, spread=2.0):
    """logits (B, K, H, W) float64 and target (B, H, W), some of it 255."""
    generator = torch.Generator().manual_seed(seed)
    size = (pictures, height, width)
    logits = spread * torch.randn(pictures, classes, height, width, generator=generator).double()
    target = torch.randint(max(classes, 2), size, generator=generator)
    target[torch.rand(size, generator=generator) < ignored] = 255
    return logits, target


cases = st.builds(
    make,
    st.integers(0, 10**6),
    pictures=st.integers(1, 3),
    classes=st.integers(1, 5),
    height=st.integers(1, 4),
    width=st.integers(1, 5),
    ignored=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    spread=st.sampled_from([0.1, 2.0, 20.0]),
)


def softmax(z):
    highest = max(z)
    e = [math.exp(x - highest) for x in z]
    return [x / sum(e) for x in e]


def listed(logits, target):
    """Of each picture a list of (probabilities, label) of its labelled pixels."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return [
        [
            (softmax(z), t)
            for z, t in zip(picture.flatten(1).T.tolist(), labels.flatten().tolist(), strict=True)
            if t != 255
        ]
        for picture, labels in zip(logits, target, strict=True)
    ]


def mean(values):
    return sum(values) / len(values) if values else 0.0


def class_mean(rows, of_class, binary, classes, per_image):
    """Mean over classes of `of_class(rows, k)`; of the batch or of each picture."""
    if not per_image:
        rows = [[pixel for picture in rows for pixel in picture]]
    means = []
    for picture in rows:
        count = len(picture[0][0]) if picture else 0
        present = {t for _, t in picture}
        chosen = [k for k in range(int(binary), count) if classes == "all" or k in present]
        means.append(mean([of_class(picture, k) for k in chosen]))
    return mean(means)
