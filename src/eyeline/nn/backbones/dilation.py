"""Which stages of a backbone are strided, and which are dilated instead.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
arXiv:1706.05587, sec. 3: a stage whose stride is left out sees as far as it saw with twice the
dilation, with the same weights.
"""

from __future__ import annotations

from eyeline.errors import EyelineError


def stage_strides(output_stride: int, depth: int = 5) -> list[tuple[int, int, int]]:
    """Of the stages that make C2 .. C`depth`: the stride by which each begins (2, or 1 where it
    would pass `output_stride`), the dilation of the stage before it, its own dilation.

    Raises EyelineError where a backbone of five maps can have no such stride or last map.
    """
    if output_stride not in (8, 16, 32):
        raise EyelineError(f"output_stride must be 8, 16 or 32, not {output_stride}")
    if depth not in (3, 4, 5):
        raise EyelineError(f"depth must be 3, 4 or 5, not {depth}")
    if output_stride > 2**depth:
        raise EyelineError(
            f"output_stride={output_stride} is more than C{depth} has, the last map with "
            f"depth={depth}: give output_stride={2**depth}"
        )
    found, before = [], 1
    for level in range(2, depth + 1):
        strided = 2**level <= output_stride
        dilation = before if strided else 2 * before
        found.append((2 if strided else 1, before, dilation))
        before = dilation
    return found
