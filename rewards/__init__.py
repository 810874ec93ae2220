"""Rewards: pure scoring functions, text in, number out. No state, no environment, no model."""

from .number import same_number

__all__ = ["same_number"]
