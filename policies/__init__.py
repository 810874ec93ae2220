"""Policies: the hybrid model, its tokenizer and chat rendering, the reasoning budget, engines."""

from . import lora
from .budget import ReasoningTokens
from .config import HybridConfig
from .engine import (
    Engine,
    EngineMetrics,
    EngineStopped,
    GenerationRequest,
    GenerationResult,
    MediaSpan,
    PauseMode,
    ReasoningBudget,
    RequestError,
    StopReason,
)
from .folder import Policy, PolicyError, load_policy, policy_files
from .hybrid import HybridModel, weights_hash
from .native import NativeEngine
from .presets import PRESETS, preset
from .rendering import ChatRenderer, Renderer, TemplateRenderer
from .responder import EngineResponder
from .serving import make_engine, make_renderer, reasoning_tokens
from .tokenizer import Tokenizer
from .transformers_policy import TransformersPolicy, open_policy

__all__ = [
    "PRESETS",
    "ChatRenderer",
    "Engine",
    "EngineMetrics",
    "EngineResponder",
    "EngineStopped",
    "GenerationRequest",
    "GenerationResult",
    "HybridConfig",
    "HybridModel",
    "MediaSpan",
    "NativeEngine",
    "PauseMode",
    "Policy",
    "PolicyError",
    "ReasoningBudget",
    "ReasoningTokens",
    "Renderer",
    "RequestError",
    "StopReason",
    "TemplateRenderer",
    "Tokenizer",
    "TransformersPolicy",
    "load_policy",
    "lora",
    "make_engine",
    "make_renderer",
    "open_policy",
    "policy_files",
    "preset",
    "reasoning_tokens",
    "weights_hash",
]
