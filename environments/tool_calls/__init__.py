"""Tool calls: which function, with which arguments, how many times, and when none."""

from .accuracy import Accuracy

__all__ = ["Accuracy"]
