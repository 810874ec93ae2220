"""Rewards: pure scoring functions and judges, text in, number out. No state, no environment, no model of their own."""

from .judge import Judge
from .math import same_math
from .number import same_number
from .scaling import rescaled
from .structure import same_document

__all__ = ["Judge", "rescaled", "same_document", "same_math", "same_number"]
