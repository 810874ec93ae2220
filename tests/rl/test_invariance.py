"""Law 4 for every algorithm: micro-batches, packing, prefix sharing, ranks and order change neither loss nor gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.policies import HybridModel, preset
from swannery.rl import Learner, PolicyLoss, TrainBatch, load_config
from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.critic import Critic
from swannery.rl.policy_loss import Streams
from swannery.rl.update import PolicyUpdate, Scored

from .made import VOCAB, made_groups

ENVIRONMENTS = ("chat/Guess-v0", "math/Arithmetic-v0")
VARIED: dict[str, dict[str, Any]] = {
    **{name: {"algorithm": {"name": name}} for name in ALGORITHMS},
    "nano's grpo": {
        "algorithm": {"name": "grpo", "scale": "leave_one_out"},
        "correction": {"kind": "mask", "low": 0.02, "max_error": 90.0},
        "rl": {"old_policy": "learner"},
    },
    "grpo of turns, prompts' means": {"algorithm": {"credit": "turn", "average": "prompt", "dual_clip": 3.0}},
    "rewards apart, shaped": {
        "algorithm": {"rewards": "apart", "average": "sequence"},
        "shaping": {
            "overlong_buffer": 4, "reasoning_length": 0.5, "answer_length": 0.2, "shortest_bonus": 0.1, "low_effort": 0.5,
        },
    },
    "with a reference and sequence masks": {
        "kl": {"coefficient": 0.1, "gradient": "score"},
        "correction": {"kind": "mask", "unit": "geometric", "low": 0.05, "high": 90.0},
        "rl": {"old_policy": "learner"},
        "shaping": {"overlong_filter": True},
    },
    "uncertain tokens alone": {"rl": {"entropy_share": 0.5}},
    "two algorithms": {"own": {"name": "gspo"}},
}  # fmt: skip
MODEL = HybridModel(preset("tiny-100k", vocab_size=VOCAB), seed=1)


def update_of(changes: dict[str, Any], dtype: torch.dtype) -> PolicyUpdate:
    model = HybridModel(MODEL.config)
    model.load_state_dict(MODEL.state_dict())
    model.to(dtype)
    own = changes.get("own")
    environments = [{"id": ENVIRONMENTS[0]}, {"id": ENVIRONMENTS[1], **({"algorithm": own} if own else {})}]
    generation = {"max_new_tokens": 16, "micro_batch_tokens": changes["micro_batch_tokens"]}
    sections = {"rl": {"updates_per_step": 1, **changes.get("rl", {})}, "generation": generation}
    rest = {key: value for key, value in changes.items() if key not in ("rl", "own", "micro_batch_tokens")}
    config = load_config({"environments": environments, **rest, **sections})
    update = PolicyUpdate(config, Learner(model, optimizer="adamw", lr=1e-3))
    if config.algorithm.name == "ppo":
        update.critic = Critic(model, lr=1e-3, value_clip=0.2)
        update.critic.head.to(dtype)
        torch.manual_seed(0)
        torch.nn.init.normal_(update.critic.head.weight, std=0.1)
    if config.kl.coefficient:
        update.reference = HybridModel(MODEL.config, seed=2).to(dtype)
    return update


def loss_and_gradient(update: PolicyUpdate, batches: list[TrainBatch]) -> tuple[float, torch.Tensor]:
    model, config = update.learner.model, update.config
    model.zero_grad()
    loss, total = PolicyLoss(config.algorithms, config.correction, config.kl, config.rl.old_policy), 0.0
    for batch in batches:
        logprobs_T, _, _ = update.learner.logprobs(batch)
        value = loss(logprobs_T, Streams.of(batch, logprobs_T.dtype))
        value.backward()
        total += value.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_algorithm_is_the_same_however_it_is_batched(
    name: str, dtype: torch.dtype, bound: float, seed: int
) -> None:
    found = []
    for max_tokens, alone, backwards in ((10**6, False, False), (64, False, False), (64, True, True)):
        update = update_of(VARIED[name] | {"micro_batch_tokens": max_tokens}, dtype)
        scored = update.score(made_groups(seed, MODEL.config, ENVIRONMENTS, count=3))
        if not scored:
            return
        if alone and name != "two algorithms":  # no prefix is shared; a share of the groups is one of all samples then
            scored = [Scored(s.algorithm, [sample]) for s in scored for sample in s.samples]
        (batches,) = update.prepare([update.pack(scored[::-1] if backwards else scored)])
        parts = [loss_and_gradient(update, batches[rank::2]) for rank in range(2) if batches[rank::2]]
        found.append((sum(value for value, _ in parts), torch.stack([gradient for _, gradient in parts]).sum(0)))
    (value, gradient), *others = found
    assert torch.isfinite(gradient).all()  # all may be masked
    for other, other_gradient in others:
        assert abs(value - other) <= bound * max(1.0, abs(value))
        torch.testing.assert_close(gradient, other_gradient, rtol=0, atol=bound * max(1.0, float(gradient.abs().max())))
