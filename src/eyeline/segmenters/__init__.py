"""Segmenters: one paper, one file. Importing this package registers them."""
