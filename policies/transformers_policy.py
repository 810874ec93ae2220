"""A causal LM of the transformers library in a Hugging Face folder as a policy: any model that TransformersEngine serves."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from .folder import HYBRIDS, Policy, PolicyError, load_policy


@dataclass
class TransformersPolicy:
    """A model and its tokenizer, with the chat template that comes with it."""

    model: Any
    tokenizer: Any


def open_policy(folder: Path, *, dtype: torch.dtype = torch.float32) -> Policy | TransformersPolicy:
    """The policy of a folder: a hybrid of ours, or any other causal LM. PolicyError tells what is missing or broken."""
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
