"""Tool use: tasks that need calls."""

from .calculator import Calculator

__all__ = ["Calculator"]
