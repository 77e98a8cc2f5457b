"""Models made ready to be used elsewhere, or faster."""

from eyeline.export.files import export_model
from eyeline.export.optimize import optimize

__all__ = ["export_model", "optimize"]
