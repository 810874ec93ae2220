"""A policy as a folder in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.

transformers loads the model unchanged. Under "swannery" the configuration keeps what only we know. Nothing is ever
unpickled, and what does not fit is refused with the first names that differ.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from .config import HybridConfig
from .huggingface import config_from_nemotron_h, config_to_nemotron_h, weights_from_nemotron_h, weights_to_nemotron_h
from .hybrid import HybridModel
from .tokenizer import Tokenizer


class PolicyError(ValueError):
    """A policy folder that cannot be used, with what is wrong."""


@dataclass
class Policy:
    """A model and the tokenizer that it speaks."""

    model: HybridModel
    tokenizer: Tokenizer


def policy_files(policy: Policy) -> dict[str, bytes]:
    """The folder's contents by file name."""
    published = config_to_nemotron_h(policy.model.config) | {
        "swannery": policy.model.config.to_dict(),
        "bos_token_id": policy.tokenizer.control["<|im_start|>"],
        "eos_token_id": policy.tokenizer.control["<|im_end|>"],
        "pad_token_id": policy.tokenizer.control["<|pad|>"],
    }
    weights = {name: tensor.contiguous() for name, tensor in weights_to_nemotron_h(policy.model.state_dict()).items()}
    return {
        "config.json": json.dumps(published, indent=2).encode(),
        "model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"}),
        "tokenizer.json": policy.tokenizer.to_json().encode(),
    }


def load_policy(folder: Path) -> Policy:
    """Read a policy folder. Raises PolicyError on what is missing, broken or of another shape."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise PolicyError(f"{folder} is no policy folder: {name} is missing")
    model = HybridModel(_read_config(folder / "config.json"))
    load_weights(model, folder / "model.safetensors")
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    except Exception as error:  # tokenizers raises nothing more precise
        raise PolicyError(f"{folder / 'tokenizer.json'} is no tokenizer of a policy: {error}") from None
    if tokenizer.vocab_size > model.config.vocab_size:
        raise PolicyError(
            f"{folder}: the tokenizer knows {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}"
        )
    return Policy(model, tokenizer)


def load_weights(model: HybridModel, path: Path) -> None:
    """Read weights into a model of the same shape."""
    try:
        weights = weights_from_nemotron_h(safetensors.torch.load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise PolicyError(f"{path} cannot be read as safetensors: {error}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wanted != found:
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        first = f"{names[0]} is {found.get(names[0], 'absent')}, the model's is {wanted.get(names[0], 'absent')}"
        raise PolicyError(f"{path} is of another architecture: {len(names)} tensors differ; {first}")
    if broken := next((name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())), None):
        raise PolicyError(f"{path} holds values that are not finite, in {broken}")
    model.load_state_dict(weights)


def _read_config(path: Path) -> HybridConfig:
    try:
        published: dict[str, Any] = json.loads(path.read_text())
        config = config_from_nemotron_h(published)
        own = published.get("swannery", {})
        return dataclasses.replace(config, **{k: own[k] for k in ("init_std", "embedding_std") if k in own})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{path} is no configuration of a hybrid policy: {error!r}") from None
