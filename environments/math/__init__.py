"""Mathematics: tasks whose answer is a number."""

from .arithmetic import Arithmetic

__all__ = ["Arithmetic"]
