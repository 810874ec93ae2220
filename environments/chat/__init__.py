"""Conversation: tasks with a user who answers."""

from .guess import Guess

__all__ = ["Guess"]
