"""Sandbox: work that must be killable runs in child processes. Needs the standard library only."""

from .worker import Pool, Worker

__all__ = ["Pool", "Worker"]
