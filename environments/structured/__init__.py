"""Structured output: facts in prose, to be written as one exact document."""

from .output import Output

__all__ = ["Output"]
