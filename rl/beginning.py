"""What a run begins with: its policy, and a phase's learner, critic and reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..environments import Env
from ..policies import HybridModel, Policy, Tokenizer, TransformersPolicy, lora, open_policy, preset
from ..policies.fetch import policy_folder
from ..policies.trainable import Trainable
from .algorithms.ppo import PPO
from .config import RunConfig
from .critic import Critic
from .demonstrations import training_text
from .learner import Learner, RouterTraining

TOKENIZER_EPISODES = 300


def new_policy(config: RunConfig, envs: Mapping[str, Env], say: Callable[[str], None]) -> Policy | TransformersPolicy:
    """The policy of a folder, or one of random weights with a tokenizer trained on the environments' own text."""
    chosen = config.policy
    if chosen.folder:
        policy = open_policy(policy_folder(chosen.folder))
        if chosen.lora_rank:
            lora.add_lora(policy.model, rank=chosen.lora_rank, alpha=chosen.lora_alpha, seed=config.seed)
        return policy
    say("Training the tokenizer on the environments' own text ...")
    tokenizer = Tokenizer.train(training_text(envs, TOKENIZER_EPISODES), chosen.vocab_size)
    return Policy(HybridModel(preset(chosen.preset, vocab_size=chosen.vocab_size), seed=config.seed), tokenizer)


def new_learner(config: RunConfig, phase: str, model: Trainable) -> Learner:
    """The learner of a phase. Muon is for weights that begin at random: models that were trained already are tuned by AdamW."""
    if phase == "sft":
        sft = config.sft
        routers = RouterTraining(weights=True, bias_rate=sft.balance_rate, aux_loss=sft.aux_loss)
        optimizer = "muon" if isinstance(model, HybridModel) else "adamw"
        return Learner(model, optimizer=optimizer, lr=sft.learning_rate, routers=routers)
    routers = RouterTraining(bias_rate=config.rl.balance_rate)
    return Learner(model, optimizer="adamw", lr=config.rl.learning_rate, routers=routers)


def new_critic(config: RunConfig, model: Trainable) -> Critic | None:
    """A critic where an algorithm needs one."""
    chosen = [algorithm for algorithm in config.algorithms.values() if isinstance(algorithm, PPO)]
    return Critic(model, lr=chosen[0].critic_learning_rate, value_clip=chosen[0].value_clip) if chosen else None
