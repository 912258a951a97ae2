"""Whole-slide images with a model beside them: open, predict, see where, click."""

__version__ = "0.1.0"
