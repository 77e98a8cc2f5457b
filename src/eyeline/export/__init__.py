"""Models made ready to be used elsewhere, or faster."""

from eyeline.export.optimize import optimize

__all__ = ["optimize"]
