"""Routers in training: frozen by default, an auxiliary loss and a live bias as options; loads are told."""

import asyncio

import numpy as np
import pytest
import torch

from swannery.environments import make
from swannery.policies import ChatRenderer, GenerationRequest, Policy, make_engine
from swannery.rl import Learner, RouterTraining, Sample, TrainBatch, demonstrate, pack, total_weight
from swannery.rl.algorithms.grpo import GRPO
from swannery.rl.policy_loss import PolicyLoss, Streams, negative_log_likelihood


def demonstrations(policy: Policy, count: int = 6) -> list[list[Sample]]:
    env = make("math/Arithmetic-v0")
    chat = ChatRenderer(policy.tokenizer)
    return [[Sample(demonstrate(env, "math/Arithmetic-v0", seed, chat), 1.0)] for seed in range(count)]


def packed(groups: list[list[Sample]]) -> TrainBatch:
    return pack(groups, total_weight(sample for group in groups for sample in group), with_routes=False)


def biases(policy: Policy) -> list[torch.Tensor]:
    return [moe.gate.e_score_correction_bias.clone() for moe in policy.model.routers()]


def test_one_pass_gives_the_gradients_of_two(policy: Policy) -> None:
    batch = packed(demonstrations(policy))
    learner = Learner(policy.model, optimizer="adamw", lr=0.0)
    logprobs_T, _, _ = learner.logprobs(batch)
    value = negative_log_likelihood(logprobs_T, Streams.of(batch, logprobs_T.dtype))
    value.backward()
    two = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    one, found_T, _, _ = learner._score(batch, negative_log_likelihood, 1.0)
    one.backward()
    torch.testing.assert_close(one, value)
    torch.testing.assert_close(found_T, logprobs_T.detach())
    for name, parameter in policy.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, two[name], rtol=1e-4, atol=1e-6)


def test_reinforcement_leaves_routers_as_they_are_and_the_bias_is_an_option(policy: Policy) -> None:
    batch, loss = packed(demonstrations(policy)), PolicyLoss({"": GRPO()})
    weights = [moe.gate.weight.clone() for moe in policy.model.routers()]
    before = biases(policy)
    metrics = Learner(policy.model, optimizer="adamw", lr=1e-2).step([batch], loss)
    assert all(torch.equal(a, b) for a, b in zip(before, biases(policy), strict=True))
    Learner(policy.model, optimizer="adamw", lr=1e-2, routers=RouterTraining(bias_rate=0.1)).step([batch], loss)
    assert all(torch.equal(w, moe.gate.weight) for w, moe in zip(weights, policy.model.routers(), strict=True))
    assert all(float((a - b).abs().max()) == pytest.approx(0.1) for a, b in zip(before, biases(policy), strict=True))
    assert 0 < metrics.max_violation <= policy.model.config.num_experts / policy.model.config.experts_per_token - 1
    assert 0 <= metrics.idle_experts < 1


def test_a_moved_bias_is_published_with_the_weights(policy: Policy) -> None:
    """It changes which experts are chosen: an engine without it would sample from another policy."""
    request = GenerationRequest(token_ids=list(range(20, 40)), max_new_tokens=8, seed=1)

    async def run() -> list[np.ndarray]:
        async with make_engine(policy, num_slots=4, capacity=64) as engine:
            routes = [(await anext(engine.generate([request])))[1].routes]
            state = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
            for name, tensor in state.items():
                if name.endswith("e_score_correction_bias"):
                    tensor[-1] += 10.0
            engine.load_weights(state, 1)
            routes.append((await anext(engine.generate([request])))[1].routes)
        return routes

    before, after = asyncio.run(run())
    last = policy.model.config.num_experts - 1
    assert (after == last).any(-1).all() and not (before == last).any(-1).all()


def test_the_auxiliary_loss_draws_loads_together(policy: Policy) -> None:
    groups = demonstrations(policy, 12)
    for moe in policy.model.routers():
        with torch.no_grad():
            moe.gate.weight.mul_(8)
            moe.gate.weight[0].add_(moe.gate.weight.abs().mean())  # a favourite
    plain = Learner(policy.model, optimizer="adamw", lr=0.0, routers=RouterTraining(weights=True))
    strong = RouterTraining(weights=True, aux_loss=10.0)
    learner = Learner(policy.model, optimizer="adamw", lr=3e-3, routers=strong)
    start = plain.step([packed(groups)], negative_log_likelihood).max_violation
    losses = [learner.step([packed(groups)], negative_log_likelihood).loss for _ in range(30)]
    end = plain.step([packed(groups)], negative_log_likelihood)
    assert end.max_violation < 0.7 * start
    assert losses[-1] >= 10.0  # 1 a layer where loads are even


def test_exact_replay_rolls_out_and_learns(policy: Policy) -> None:
    policy.model.exact = True
    request = GenerationRequest(token_ids=list(range(20, 47)), max_new_tokens=40, seed=3)

    async def run() -> tuple[list[int], np.ndarray]:
        async with make_engine(policy, num_slots=4, capacity=128) as engine:
            result = (await anext(engine.generate([request])))[1]
            return result.token_ids, np.array(result.logprobs)

    from swannery.kernels.packing import Packing

    sampled, logprobs = asyncio.run(run())
    ids = torch.tensor([*request.token_ids, *sampled])
    with torch.no_grad():
        hidden, _ = policy.model(ids[:-1], Packing.build([len(ids) - 1], chunk_size=policy.model.config.chunk_size))
        scored = policy.model.logits(hidden).log_softmax(-1)[26:].gather(1, ids[27:, None]).squeeze(1).numpy()
    assert np.abs(scored - logprobs).max() <= 2e-6
