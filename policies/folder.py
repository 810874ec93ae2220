"""A policy as a folder in the Hugging Face layout: config.json, model.safetensors (or shards), tokenizer.json.

transformers loads the model unchanged. Under "swannery" the configuration keeps what only we know.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .checkpoint import PolicyError, load_into, save_weights
from .config import HybridConfig
from .huggingface import config_from_nemotron_h, config_to_nemotron_h, weights_to_nemotron_h
from .hybrid import HybridModel
from .tokenizer import Tokenizer


@dataclass
class Policy:
    """A model and the tokenizer that it speaks."""

    model: HybridModel
    tokenizer: Tokenizer
    mtp: dict[str, Tensor] = field(default_factory=dict)
    """Weights of multi-token prediction, which came with a checkpoint and are saved with it again; the model has none yet."""


def policy_files(policy: Policy) -> dict[str, bytes]:
    """The folder's contents by file name, for policies that are small enough to be held twice."""
    weights = {**weights_to_nemotron_h(policy.model.state_dict()), **policy.mtp}
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    return {**_described(policy), "model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"})}


def save_policy(policy: Policy, folder: Path, *, max_shard_bytes: int = 5 * 10**9) -> None:
    """Write a policy folder, weights shard by shard. The folder must not exist; it appears when it is whole."""
    if folder.exists():
        raise PolicyError(f"{folder} exists: name another, or move it away")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_weights(policy.model.state_dict(), part, mtp=policy.mtp, max_shard_bytes=max_shard_bytes)
        for name, content in _described(policy).items():
            (part / name).write_bytes(content)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _described(policy: Policy) -> dict[str, bytes]:
    published = config_to_nemotron_h(policy.model.config) | {
        "swannery": policy.model.config.to_dict(),
        "bos_token_id": policy.tokenizer.control["<|im_start|>"],
        "eos_token_id": policy.tokenizer.control["<|im_end|>"],
        "pad_token_id": policy.tokenizer.control["<|pad|>"],
    }
    return {
        "config.json": json.dumps(published, indent=2).encode(),
        "tokenizer.json": policy.tokenizer.to_json().encode(),
    }


def load_policy(folder: Path) -> Policy:
    """Read a policy folder. Raises PolicyError on what is missing, broken or of another shape."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise PolicyError(f"{folder} is no policy folder: {name} is missing")
    with torch.device("meta"):
        model = HybridModel(_read_config(folder / "config.json"))
    model.to_empty(device="cpu")
    mtp = load_into(model.state_dict(), folder)
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    except Exception as error:  # tokenizers raises nothing more precise
        raise PolicyError(f"{folder / 'tokenizer.json'} is no tokenizer of a policy: {error}") from None
    if tokenizer.vocab_size > model.config.vocab_size:
        raise PolicyError(
            f"{folder}: the tokenizer knows {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}"
        )
    return Policy(model, tokenizer, mtp)


def _read_config(path: Path) -> HybridConfig:
    try:
        published: dict[str, Any] = json.loads(path.read_text())
        config = config_from_nemotron_h(published)
        own = published.get("swannery", {})
        return dataclasses.replace(config, **{k: own[k] for k in ("init_std", "embedding_std") if k in own})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{path} is no configuration of a hybrid policy: {error!r}") from None
