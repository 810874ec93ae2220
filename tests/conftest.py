"""Shared fixtures: a small policy with a tokenizer of its own, made once."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from swannery.environments import make
from swannery.policies import HybridModel, Policy, Tokenizer, preset
from swannery.rl.demonstrations import training_text

OURS = ("math/Arithmetic-v0", "tools/Calculator-v0", "chat/Guess-v0")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # two threads collapse when the cores are shared


@pytest.fixture(scope="session")
def benchmark() -> Callable[[str], ModuleType]:
    """A file of benchmarks/, which is no package."""

    folder = str(Path(__file__).parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(training_text({env_id: make(env_id) for env_id in OURS}, 40), 384)


@pytest.fixture
def policy(tokenizer: Tokenizer) -> Policy:
    """Random weights with a sharpened head, so that probabilities differ from uniform."""
    config = preset("tiny-100k", vocab_size=384)
    model = HybridModel(config, seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    return Policy(model, tokenizer)
