"""Policies: the hybrid model, its tokenizer and chat rendering, the reasoning budget, engines."""

from .budget import ReasoningTokens
from .config import PRESETS, HybridConfig, preset
from .engine import Engine, GenerationRequest, GenerationResult, ReasoningBudget, StopReason
from .folder import Policy, PolicyError, load_policy, policy_files
from .hybrid import HybridModel, weights_hash
from .native import NativeEngine
from .rendering import ChatRenderer
from .responder import EngineResponder
from .serving import make_engine
from .tokenizer import Tokenizer

__all__ = [
    "PRESETS",
    "ChatRenderer",
    "Engine",
    "EngineResponder",
    "GenerationRequest",
    "GenerationResult",
    "HybridConfig",
    "HybridModel",
    "NativeEngine",
    "Policy",
    "PolicyError",
    "ReasoningBudget",
    "ReasoningTokens",
    "StopReason",
    "Tokenizer",
    "load_policy",
    "make_engine",
    "policy_files",
    "preset",
    "weights_hash",
]
