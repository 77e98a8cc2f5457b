"""What goes on inside a model: where its time goes, and what its scores hang on."""

from eyeline.inspection.cam import (
    Activation,
    activations,
    box_score,
    class_activation,
    class_score,
    mask_score,
    pixel_score,
)
from eyeline.inspection.heat import enlarge, heat, overlay
from eyeline.inspection.limits import Limits, measure_limits
from eyeline.inspection.profile import Profile, profile_inference, profile_training
from eyeline.inspection.stages import Stage

__all__ = [
    "Activation", "Limits", "Profile", "Stage", "activations", "box_score", "class_activation",
    "class_score", "enlarge", "heat", "mask_score", "measure_limits", "overlay", "pixel_score",
    "profile_inference", "profile_training",
]  # fmt: skip
