"""A workplace assistant: mail, calendar, analytics, projects and customers, and a request that must leave them right."""

from .assistant import Assistant

__all__ = ["Assistant"]
