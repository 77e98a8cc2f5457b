"""Necks: what mixes the levels of a backbone."""
