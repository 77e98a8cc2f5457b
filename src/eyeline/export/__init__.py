"""Models made ready to be used elsewhere, or faster."""

from eyeline.export.calibration import Ranges, calibrate
from eyeline.export.files import export_model
from eyeline.export.folding import folded
from eyeline.export.optimize import PRECISIONS, optimize

__all__ = ["PRECISIONS", "Ranges", "calibrate", "export_model", "folded", "optimize"]
