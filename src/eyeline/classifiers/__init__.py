"""Classifiers: one paper, one file. Importing the package registers them."""

from eyeline.classifiers.resnet import ResNet

__all__ = ["ResNet"]
