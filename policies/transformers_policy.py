"""A causal LM of the transformers library in a Hugging Face folder as a policy: any model that TransformersEngine serves."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from . import lora
from .folder import HYBRIDS, Policy, PolicyError, load_policy


@dataclass
class TransformersPolicy:
    """A model and its tokenizer, with the chat template that comes with it."""

    model: Any
    tokenizer: Any


def open_policy(folder: Path, *, dtype: torch.dtype = torch.float32) -> Policy | TransformersPolicy:
    """The policy of a folder: a hybrid of ours, any other causal LM, or a LoRA adapter beside its base. PolicyError tells what is
    missing or broken."""
    if (folder / lora.ADAPTER_CONFIG).is_file():
        return _with_adapter(folder, dtype)
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise PolicyError(f"{folder} is no policy folder: config.json cannot be read ({error})") from None
    if kind in HYBRIDS:
        return load_policy(folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # Never pickled weights, never code of the folder's.
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PolicyError(f"{folder}: transformers cannot load it: {error}") from None
    return TransformersPolicy(model.eval(), tokenizer)


def _with_adapter(folder: Path, dtype: torch.dtype) -> Policy | TransformersPolicy:
    try:
        known = json.loads((folder / lora.ADAPTER_CONFIG).read_text())
        base, rank, alpha = Path(known["base_model_name_or_path"]), known["r"], known["lora_alpha"]
        tensors = safetensors.torch.load_file(folder / lora.ADAPTER)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise PolicyError(f"{folder} holds no LoRA adapter that can be read: {error!r}") from None
    policy = open_policy(base, dtype=dtype)
    if isinstance(policy, Policy):
        raise PolicyError(f"{folder} is an adapter of {base}, a hybrid: LoRA is for models of the transformers library")
    lora.add_lora(policy.model, rank=rank, alpha=alpha)
    try:
        lora.load_adapter(policy.model, tensors)
    except ValueError as error:
        raise PolicyError(f"{folder}: {error}") from None
    return policy


def transformers_files(policy: TransformersPolicy) -> dict[str, bytes]:
    """A policy folder's contents by file name, as transformers reads it. LoRA is merged into the weights."""
    model, files = policy.model, {}
    weights = lora.merged(model) if lora.lora_of(model) else model.state_dict()
    if model.config.get_text_config().tie_word_embeddings:
        weights = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    files["config.json"] = model.config.to_json_string().encode()
    files["model.safetensors"] = safetensors.torch.save(weights, metadata={"format": "pt"})
    if getattr(model, "generation_config", None) is not None:
        files["generation_config.json"] = model.generation_config.to_json_string().encode()
    with tempfile.TemporaryDirectory() as work:
        policy.tokenizer.save_pretrained(work)
        files |= {path.name: path.read_bytes() for path in sorted(Path(work).iterdir()) if path.is_file()}
    return files
