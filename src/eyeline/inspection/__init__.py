"""What goes on inside a model: the path of a picture through it, where its time goes, what became
of each box, and what a score hangs on."""

from eyeline.inspection.cam import (
    Activation,
    activations,
    box_score,
    class_activation,
    class_score,
    mask_score,
    pixel_score,
)
from eyeline.inspection.explain import explain
from eyeline.inspection.fate import Fate, fates, origin, story
from eyeline.inspection.heat import enlarge, heat, overlay
from eyeline.inspection.limits import Limits, measure_limits
from eyeline.inspection.map_xray import MapXRay, xray_map
from eyeline.inspection.profile import Profile, profile_inference, profile_training
from eyeline.inspection.stages import Stage
from eyeline.inspection.trace import Step, Trace, trace
from eyeline.inspection.xray import XRay, xray

__all__ = [
    "Activation", "Fate", "Limits", "MapXRay", "Profile", "Stage", "Step", "Trace", "XRay", "activations",
    "box_score", "class_activation", "class_score", "enlarge", "explain", "fates", "heat",
    "mask_score", "measure_limits", "origin", "overlay", "pixel_score", "profile_inference",
    "profile_training", "story", "trace", "xray", "xray_map",
]  # fmt: skip
