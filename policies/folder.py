"""A policy as a folder in the Hugging Face layout: config.json, model.safetensors (or shards), tokenizer.json, chat template.

transformers loads model, tokenizer and template unchanged. Under "swannery" the configuration keeps what only we know; a model with
sliding windows, which `nemotron_h` has not, is described there alone. A published folder's own tokenizer and template are kept as
they came.
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
from .nemotron_template import CHAT_TEMPLATE, tokenizer_config
from .tokenizer import Tokenizer

HYBRIDS = ("nemotron_h", "swannery_hybrid")
"""What a configuration calls the models that are read here."""
_MARKS = ("<|im_start|>", "<|im_end|>", "<|pad|>")
_SPOKEN = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "generation_config.json",
)  # fmt: skip
_UNPUBLISHED: dict[str, Any] = {"model_type": HYBRIDS[1], "architectures": ["HybridModel"]}


@dataclass
class Policy:
    """A model and the tokenizer that it speaks: ours, or one of the transformers library with a chat template of its own."""

    model: HybridModel
    tokenizer: Any
    mtp: dict[str, Tensor] = field(default_factory=dict)
    """Weights of multi-token prediction, which came with a checkpoint and are saved with it again; the model has none yet."""
    spoken: dict[str, bytes] = field(default_factory=dict)
    """The files of a published tokenizer and its chat template. Empty: the tokenizer is ours."""


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
    config = policy.model.config
    published = _UNPUBLISHED if "W" in config.pattern else config_to_nemotron_h(config)
    if policy.spoken:
        tokens = {f"{name}_token_id": getattr(policy.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        files = policy.spoken
    else:
        control = policy.tokenizer.control
        tokens = dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), map(control.get, _MARKS), strict=True))
        files = {
            "tokenizer.json": policy.tokenizer.to_json().encode(),
            "tokenizer_config.json": tokenizer_config(),
            "chat_template.jinja": CHAT_TEMPLATE.encode(),
        }
    known = {
        **published,
        "swannery": config.to_dict(),
        **{key: token for key, token in tokens.items() if token is not None},
    }
    return {"config.json": json.dumps(known, indent=2).encode(), **files}


def load_policy(folder: Path) -> Policy:
    """Read a policy folder. Raises PolicyError on what is missing, broken or of another shape."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise PolicyError(f"{folder} is no policy folder: {name} is missing")
    with torch.device("meta"):
        model = HybridModel(_read_config(folder / "config.json"))
    model.to_empty(device="cpu")
    mtp = load_into(model.state_dict(), folder)
    tokenizer, spoken = _read_tokenizer(folder)
    vocab_size = len(tokenizer) if spoken else tokenizer.vocab_size
    if vocab_size > model.config.vocab_size:
        raise PolicyError(
            f"{folder}: the tokenizer knows {vocab_size} tokens, the model only {model.config.vocab_size}"
        )
    return Policy(model, tokenizer, mtp, spoken)


def _read_tokenizer(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """Our tokenizer, or a published one with its files."""
    template = folder / "chat_template.jinja"
    if not template.is_file() or template.read_bytes() == CHAT_TEMPLATE.encode():
        try:
            return Tokenizer.load(folder / "tokenizer.json"), {}
        except Exception as error:  # tokenizers raises nothing more precise
            ours = error
    else:
        ours = None
    spoken = {name: (folder / name).read_bytes() for name in _SPOKEN if (folder / name).is_file()}
    if ours is not None and b"chat_template" not in spoken.get("tokenizer_config.json", b""):
        raise PolicyError(f"{folder / 'tokenizer.json'} is no tokenizer of a policy: {ours}") from None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False), spoken
    except Exception as error:  # of many kinds
        raise PolicyError(f"{folder}: its tokenizer cannot be loaded: {error}") from None


def _read_config(path: Path) -> HybridConfig:
    try:
        published: dict[str, Any] = json.loads(path.read_text())
        if published.get("model_type") == _UNPUBLISHED["model_type"]:
            return HybridConfig.from_dict(published["swannery"])
        config = config_from_nemotron_h(published)
        own = published.get("swannery", {})
        return dataclasses.replace(config, **{k: own[k] for k in ("init_std", "embedding_std") if k in own})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{path} is no configuration of a hybrid policy: {error!r}") from None
