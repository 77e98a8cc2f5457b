"""What every loss of segmentation must do, by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_maps import cases, make
from torch.autograd import gradcheck

import eyeline.losses.normaliser as normaliser
from eyeline.errors import EyelineError
from eyeline.losses import SEGMENTATION_LOSSES, segmentation_loss, signed_distances
from eyeline.ops.select import fixed_shapes

properties = settings(max_examples=4, deadline=None)
# Options under which each differs most from its own default; `least` so that some are left out.
OPTIONS = {
    "cross_entropy": [{}, {"smoothing": 0.2}],
    "ohem": [{"threshold": 0.4, "least": 3, "share": 1.0}, {}],
    "focal": [{}, {"gamma": 0.5}],
    "dice": [{}, {"classes": "all", "per_image": True, "smooth": 1.0}, {"classes": "all"}],
    "tversky": [{}, {"classes": "all", "per_image": True}],
    "lovasz": [{}, {"classes": "all", "per_image": True}],
    "boundary": [{}],
}
ALL = [(name, options) for name, rows in OPTIONS.items() for options in rows]
ids = [name + "".join(f" {key}={value}" for key, value in rest.items()) for name, rest in ALL]
every = pytest.mark.parametrize(("name", "options"), ALL, ids=ids)


def gradient(name, logits, target, options):
    logits = logits.detach().clone().requires_grad_()
    loss = segmentation_loss(name, logits, target, **options)
    assert loss.shape == () and loss.dtype == torch.promote_types(logits.dtype, torch.float32)
    loss.backward()
    return loss.detach(), logits.grad


def test_the_names():
    assert list(SEGMENTATION_LOSSES) == list(OPTIONS) == [
        "cross_entropy", "ohem", "focal", "dice", "tversky", "lovasz", "boundary",
    ]  # fmt: skip


@every
@pytest.mark.parametrize("classes", [1, 3])
def test_all_ignored(name, options, classes):
    logits, target = make(0, classes=classes)
    loss, grad = gradient(name, logits, torch.full_like(target, 255), options)
    assert loss.item() == 0 and not grad.any()


@every
@properties
@given(case=cases, junk=st.sampled_from([-1e4, 50.0]))
def test_ignored_pixels_change_nothing(name, options, case, junk):
    logits, target = case
    ignored = target == 255
    loss, grad = gradient(name, logits, target, options)
    assert not grad.movedim(1, -1)[ignored].any() and grad.isfinite().all()
    other = logits.clone()
    other.movedim(1, -1)[ignored] = junk
    again, same = gradient(name, other, target, options)
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(same, grad)
    # under another number too
    seven = target.where(~ignored, -7)
    assert torch.equal(segmentation_loss(name, logits, seven, ignore=-7, **options), loss)


@every
@properties
@given(case=cases, seed=st.integers(0, 99))
def test_no_class_and_no_picture_comes_first(name, options, case, seed):
    """One order of classes, or of pictures, is as good as another."""
    logits, target = case
    generator = torch.Generator().manual_seed(seed)
    loss = segmentation_loss(name, logits, target, **options)
    order = torch.randperm(len(logits), generator=generator)
    mixed = segmentation_loss(name, logits[order], target[order], **options)
    torch.testing.assert_close(mixed, loss)
    if (classes := logits.shape[1]) > 1:
        order = torch.randperm(classes, generator=generator)
        renamed = order.argsort()[target.clamp(max=classes - 1)].where(target != 255, 255)
        mixed = segmentation_loss(name, logits[:, order], renamed, **options)
        torch.testing.assert_close(mixed, loss)


@every
@pytest.mark.parametrize("classes", [1, 3])
def test_gradients(name, options, classes):
    logits, target = make(7, classes=classes, height=2, width=2)

    def f(x):
        return segmentation_loss(name, x, target, **options)

    assert gradcheck(f, logits.requires_grad_())


@every
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
def test_extreme_logits(name, options, classes, size):
    logits, target = make(4, classes=classes)
    logits = (size * logits.sign()).float()
    for labels in (target, target.clamp(max=0), target.where(target == 255, 1)):
        loss, grad = gradient(name, logits, labels, options)
        assert loss.isfinite() and grad.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_judged_in_float32(name, options, dtype):
    logits, target = make(8)
    logits = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = segmentation_loss(name, logits, target, **options)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, segmentation_loss(name, logits.float(), target, **options))


@every
@pytest.mark.parametrize("classes", [1, 3])
def test_descends_to_the_target(name, options, classes):
    logits, target = make(9, classes=classes, ignored=0.1, height=4, width=6, spread=0.5)
    for _ in range(25):
        logits = logits - 0.2 * gradient(name, logits, target, options)[1].sign()
    found = logits.argmax(1) if classes > 1 else (logits[:, 0] > 0).long()
    taught = target != 255
    if name == "boundary" and classes == 1:  # its distance is 0 on the border of the one class
        taught &= signed_distances(target, 2)[:, 1] != 0
    assert taught.sum() > 10 and torch.equal(found[taught], target[taught])


@every
def test_bytes_are_labels_too(name, options):
    logits, target = make(3)
    found = segmentation_loss(name, logits, target.to(torch.uint8), **options)
    assert torch.equal(found, segmentation_loss(name, logits, target, **options))


@pytest.mark.parametrize("name", list(OPTIONS))
def test_a_byte_is_not_taken_for_a_negative_number(name):
    logits, target = make(3)
    target[0, 0, 0] = 249  # what -7 is, in a byte
    with pytest.raises(EyelineError, match="class 249 "):
        segmentation_loss(name, logits, target.to(torch.uint8).where(target != 255, 0), ignore=-7)


@every
def test_nobody_need_look(name, options):
    """As on a GPU, where reading a value would wait."""
    logits, target = make(3)
    with fixed_shapes():
        found = segmentation_loss(name, logits, target, **options)
    assert torch.equal(found, segmentation_loss(name, logits, target, **options))


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "boundary"])
def test_compiles_whole(name):
    logits, target = make(3)
    compiled = torch.compile(SEGMENTATION_LOSSES[name], fullgraph=True, backend="eager")
    assert torch.equal(compiled(logits, target), segmentation_loss(name, logits, target))


@pytest.mark.parametrize("name", list(OPTIONS))
def test_what_does_not_fit_is_named(name):
    logits, target = make(0)
    with pytest.raises(EyelineError, match=r"not \(2, 3, 4, 5\) and \(2, 4, 4\)"):
        segmentation_loss(name, logits, target[..., :4])
    with pytest.raises(EyelineError, match="integers, one a pixel; the target is torch"):
        segmentation_loss(name, logits, target.double())
    for wrong in (3, -1, 254):
        target[1, 2, 3] = wrong
        with pytest.raises(EyelineError, match=f"a target: class {wrong} "):
            segmentation_loss(name, logits, target)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_weights_go_to_those_that_have_them(name):
    logits, target = make(0)
    found = segmentation_loss(name, logits, target, weights=(1.0, 2.0, 3.0))
    weighted = found != segmentation_loss(name, logits, target)
    assert weighted == (name in ("cross_entropy", "ohem", "focal"))


def test_an_unknown_name():
    with pytest.raises(EyelineError, match="called 'iou'; there are: cross_entropy, ohem, focal,"):
        segmentation_loss("iou", *make(0))


AS_ONE = [
    ("cross_entropy", {"smoothing": 0.1, "weights": (0.01, 0.02, 0.03)}),
    ("focal", {"weights": (0.01, 0.02, 0.03)}),
    ("ohem", {"threshold": 0.4, "least": 0}),
    ("dice", {"per_image": True}),
    ("lovasz", {"per_image": True}),
    ("boundary", {}),
]


@pytest.mark.parametrize(("name", "options"), AS_ONE, ids=[name for name, _ in AS_ONE])
def test_processes_that_share_a_batch(name, options, monkeypatch):
    """The mean over their pictures is what one process with all would have, gradients too; the
    weights are so small that a sum clamped to 1 would show."""
    logits, target = make(2, pictures=3)
    target[0] = 255  # one has nothing to learn
    whole, grad = gradient(name, logits, target, options)
    parts = [slice(0, 1), slice(1, 3)]
    told = []  # first round: what each process says; second: it hears the sum
    monkeypatch.setattr(normaliser, "count_processes", lambda: 2)
    monkeypatch.setattr(normaliser, "sum_over_processes", lambda own: told.append(own) or own)
    for part in parts:
        gradient(name, logits[part], target[part], options)
    if told:
        monkeypatch.setattr(normaliser, "sum_over_processes", lambda _: sum(told[:2]))
    found = [gradient(name, logits[part], target[part], options) for part in parts]
    assert bool(told) == ("per_image" not in options)
    mean = (found[0][0] + 2 * found[1][0]) / 3
    torch.testing.assert_close(mean, whole)
    torch.testing.assert_close(torch.cat([found[0][1] / 3, found[1][1] * 2 / 3]), grad)
