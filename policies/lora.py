"""LoRA (https://arxiv.org/abs/2106.09685) by the peft library: small matrices beside the linear layers of a frozen model.

    W x + alpha / rank * B A x          A random, B zero: at first the model is what it was

All linear layers but the head have them, experts' and attention's alike. The adapter is saved as peft saves it; merged, the model is
a plain one again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def add_lora(model: Any, *, rank: int, alpha: float, seed: int = 0) -> None:
    """Freeze a model of the transformers library and put LoRA beside its linear layers, in place."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    model.swannery_lora = config


def lora_of(model: Any) -> Any | None:
    """The configuration of the LoRA that a model has; None without."""
    return getattr(model, "swannery_lora", None)


def adapter_files(model: Any, base: str) -> dict[str, bytes]:
    """The adapter in peft's layout, to be put beside `base`, a folder or a name."""
    config = model.swannery_lora.to_dict() | {"base_model_name_or_path": base, "peft_type": "LORA"}
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in adapter(model).items()}
    return {
        ADAPTER: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        ADAPTER_CONFIG: json.dumps(config, indent=2, default=str).encode(),
    }


def adapter(model: Any) -> dict[str, Tensor]:
    """The adapter's tensors by peft's published names."""
    return {_published(name): tensor for name, tensor in model.state_dict().items() if "lora_" in name}


def load_adapter(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy an adapter's tensors into a model that has one of the same shape. ValueError where they do not fit."""
    present = {f"base_model.model.{_published(n)}": t for n, t in model.state_dict().items() if "lora_" in n}
    wanted = {name: tuple(tensor.shape) for name, tensor in present.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(
            f"the adapter is of another shape: {len(names)} tensors differ; {names[0]} is {found.get(names[0], 'absent')}, the "
            f"model's is {wanted.get(names[0], 'absent')}"
        )
    with torch.no_grad():
        for name, tensor in present.items():
            tensor.copy_(tensors[name])


def merged(model: Any) -> dict[str, Tensor]:
    """The weights of the plain model that a model with LoRA is, under its own names."""
    from peft.tuners.lora import Linear

    weights = {n.replace(".base_layer.", "."): t for n, t in model.state_dict().items() if "lora_" not in n}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + module.get_delta_weight("default")
    return weights


def _published(name: str) -> str:
    """peft's files do not say which adapter it is."""
    return name.replace(".default.", ".")
