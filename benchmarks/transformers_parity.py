"""Our model against transformers' NemotronHForCausalLM on random shapes: logits, greedy tokens, and a round trip of weights.

    python benchmarks/transformers_parity.py [--shapes 16]

Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from measure import report

from swannery.kernels.packing import Packing
from swannery.policies import HybridModel, Policy, Tokenizer
from swannery.policies.folder import save_policy
from swannery.policies.huggingface import config_from_nemotron_h, weights_from_nemotron_h

LENGTH = 37
BARS = {"largest_difference": ("<=", 1e-4), "saved_largest_difference": ("<=", 1e-4), "greedy_agree": (">=", 1.0)}


def published(seed: int) -> Any:
    """A random shape: all letters, latent experts, groups of experts and of state, several heads a key."""
    from transformers import NemotronHConfig

    chance = random.Random(seed)
    pick = lambda *values: chance.choice(values)  # noqa: E731
    groups = pick(1, 1, 2, 3)
    pattern: dict[str, Any] = {"hybrid_override_pattern": "".join(chance.sample("M*E-ME", 6))}
    return NemotronHConfig(
        **pattern, vocab_size=320, hidden_size=pick(48, 64, 80),
        num_attention_heads=4, num_key_value_heads=pick(1, 2, 4), head_dim=pick(8, 16), intermediate_size=48,
        ssm_state_size=pick(4, 8, 16), mamba_num_heads=pick(4, 8), mamba_head_dim=pick(8, 16), n_groups=pick(1, 2, 4),
        chunk_size=pick(8, 16), n_routed_experts=12, moe_intermediate_size=24, moe_shared_expert_intermediate_size=40,
        num_experts_per_tok=pick(1, 2, 3), routed_scaling_factor=pick(1.0, 2.5), n_group=groups, topk_group=pick(1, groups),
        moe_latent_size=pick(None, 24),
    )  # fmt: skip


@torch.no_grad()
def compare(seed: int, folder: Path) -> dict[str, Any]:
    """Their random weights in our model, and ours saved and loaded by them."""
    from transformers import AutoModelForCausalLM, NemotronHForCausalLM

    config = published(seed)
    torch.manual_seed(seed)
    theirs = NemotronHForCausalLM(config).eval()
    for parameter in theirs.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, 0.15)
    for name, buffer in theirs.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.1)
    ours = HybridModel(config_from_nemotron_h(config.to_dict()))
    ours.load_state_dict(weights_from_nemotron_h(theirs.state_dict()))
    ids = torch.randint(0, config.vocab_size, (2, LENGTH))
    hidden, _ = ours(ids.flatten(), Packing.build([LENGTH] * 2, chunk_size=ours.config.chunk_size))
    logits, wanted = ours.logits(hidden), theirs(ids).logits.flatten(0, 1)
    save_policy(Policy(ours, Tokenizer.train(["a"], 267)), folder / str(seed))
    again = AutoModelForCausalLM.from_pretrained(folder / str(seed), dtype=torch.float32).eval()
    difference = lambda a, b: float((a - b).abs().max())  # noqa: E731
    return {
        "pattern": ours.config.pattern, "hidden": config.hidden_size, "groups": config.n_groups,
        "expert groups": config.n_group, "latent": config.moe_latent_size or 0, "heads a key": 4 // config.num_key_value_heads,
        "largest logit": float(wanted.abs().max()), "difference": difference(logits, wanted),
        "saved difference": difference(logits, again(ids).logits.flatten(0, 1)),
        "greedy": bool(torch.equal(logits.argmax(-1), wanted.argmax(-1))),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=16)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as work:
        rows = [compare(seed, Path(work)) for seed in range(options.shapes)]
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        cells = (
            f"{v:.1e}" if k.endswith("difference") else f"{v:.3g}" if isinstance(v, float) else str(v)
            for k, v in row.items()
        )
        print("| " + " | ".join(cells) + " |")
    figures = {
        "shapes": float(len(rows)),
        "largest_difference": max(row["difference"] for row in rows),
        "saved_largest_difference": max(row["saved difference"] for row in rows),
        "greedy_agree": sum(row["greedy"] for row in rows) / len(rows),
    }
    report("parity with transformers", figures, BARS)


if __name__ == "__main__":
    main()
