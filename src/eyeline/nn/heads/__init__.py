"""Heads: what turns feature maps into boxes."""
