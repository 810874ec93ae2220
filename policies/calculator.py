"""What a shape costs before it exists: parameters, FLOPs, cache, and where a hybrid overtakes a transformer."""

# Shapes of formulas: d hidden size, H heads, P head size, N state size, T tokens of context.

from __future__ import annotations

from dataclasses import dataclass

from .config import HybridConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model. `active` are those that a token meets in the layers and the head; the row that it takes of the
    input embeddings is `embedding / vocab_size`, and reports differ in whether they count all of them."""

    total: int
    active: int
    embedding: int
    by_letter: dict[str, int]
    """Of one layer of each kind, its norm included."""


def count_parameters(config: HybridConfig) -> ParameterCount:
    """Exactly what HybridModel has (the selection bias is a buffer). The reserved MTP block is not counted."""
    c, d = config, config.hidden_size
    attention = d * c.head_dim * 2 * (c.num_attention_heads + c.num_key_value_heads)
    expert = 2 * (c.latent_size or d) * c.expert_size
    around = c.num_experts * d + 2 * d * c.shared_expert_size + 2 * d * (c.latent_size or 0)
    mamba = d * (c.mamba_size + c.conv_size + c.mamba_num_heads) + c.conv_size * (c.conv_kernel + 1)
    mamba += 3 * c.mamba_num_heads + c.mamba_size + c.mamba_size * d
    total = {"M": mamba, "*": attention, "W": attention, "E": around + c.num_experts * expert, "-": 2 * d * c.mlp_size}
    active = {**total, "E": around + c.experts_per_token * expert}
    embedding = c.vocab_size * d
    of = lambda sizes: sum(sizes[letter] + d for letter in c.pattern) + d  # noqa: E731
    return ParameterCount(
        total=of(total) + 2 * embedding,
        active=of(active) + embedding,
        embedding=embedding,
        by_letter={letter: total[letter] + d for letter in sorted(set(c.pattern))},
    )


def flops_per_token(config: HybridConfig, context: int, *, training: bool = False) -> int:
    """FLOPs of a token's forward pass behind `context` others: two a parameter that it meets, six a number of each Mamba state
    (decay, add, read), four a head dimension of each key that it sees. Training costs three times as much."""
    c = config
    seen = {"*": context, "W": min(context, c.window_size)}
    scan = 6 * c.mamba_size * c.ssm_state_size * c.pattern.count("M")
    attention = sum(4 * c.num_attention_heads * c.head_dim * seen.get(letter, 0) for letter in c.pattern)
    return (2 * count_parameters(config).active + scan + attention) * (3 if training else 1)


def state_bytes(config: HybridConfig, context: int, *, kv_itemsize: int = 2, state_itemsize: int = 4) -> int:
    """Bytes that decoding one sequence keeps, and reads at every token: keys and values, windows, Mamba states."""
    c = config
    kv = 2 * c.num_key_value_heads * c.head_dim * kv_itemsize
    mamba = c.mamba_size * c.ssm_state_size * state_itemsize + (c.conv_kernel - 1) * c.conv_size * kv_itemsize
    each = {"M": mamba, "*": kv * context, "W": kv * min(context, c.window_size)}
    return sum(each.get(letter, 0) for letter in c.pattern)


def crossover(config: HybridConfig, *, kv_itemsize: int = 2, state_itemsize: int = 4) -> float:
    """The context at which a Mamba layer's state weighs as much as an attention layer's keys and values: beyond it, decoding
    with Mamba moves less. H P N s_state / (J D s_kv); both are read, and the state is written too, so twice each."""
    c = config
    return c.mamba_size * c.ssm_state_size * state_itemsize / (c.num_key_value_heads * c.head_dim * kv_itemsize)
