"""Swannery: Gymnasium-style environments for language models, and the policies, engine and learner to raise them."""

__version__ = "0.1.0"
