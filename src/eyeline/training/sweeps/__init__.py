"""Sweeps: many runs of one recipe, in which some keys are searched."""
