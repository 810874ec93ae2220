"""Banking support: a customer with tools of their own, a policy, and accounts that must end up right."""

from .support import Support

__all__ = ["Support"]
