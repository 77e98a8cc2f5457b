"""What goes on inside a model: where its time goes."""

from eyeline.inspection.limits import Limits, measure_limits
from eyeline.inspection.profile import Profile, profile_inference, profile_training
from eyeline.inspection.stages import Stage

__all__ = [
    "Limits", "Profile", "Stage", "measure_limits", "profile_inference", "profile_training",
]  # fmt: skip
