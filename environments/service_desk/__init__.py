"""An IT service desk: tickets to triage, resolve or escalate, by runbooks and a policy."""

from .tickets import Tickets

__all__ = ["Tickets"]
