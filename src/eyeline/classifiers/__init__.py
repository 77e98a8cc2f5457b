"""Classifiers: one paper, one file. Importing the package registers them."""

from eyeline.classifiers import resnet

__all__ = ["resnet"]
