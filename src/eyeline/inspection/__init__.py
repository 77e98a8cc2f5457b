"""What goes on inside a model: the path of a picture through it, and where its time goes."""

from eyeline.inspection.limits import Limits, measure_limits
from eyeline.inspection.profile import Profile, profile_inference, profile_training
from eyeline.inspection.stages import Stage
from eyeline.inspection.trace import Step, Trace, trace

__all__ = [
    "Limits", "Profile", "Stage", "Step", "Trace", "measure_limits", "profile_inference",
    "profile_training", "trace",
]  # fmt: skip
