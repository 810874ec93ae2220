"""TRL's trainers on one of our environments: a Llama of one million parameters, from scratch, imitates a demonstrator (SFTTrainer)
until it gets some sums right, and goes on with GRPOTrainer.

pip install swannery[trl]
python examples/trl_grpo.py
"""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from swannery.rl.trl import Episodes, chat_tokenizer

ENVIRONMENT: Any = {"env_id": "math/Arithmetic-v0", "operations": ("add",), "level": 1}
QUIET: dict[str, Any] = dict(
    use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no"
)


def llama(tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
    sizes = dict(hidden_size=128, intermediate_size=328, num_hidden_layers=5, num_attention_heads=4)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes, **marks))


def main(folder: str = "runs/trl", sft_steps: int = 150, grpo_steps: int = 40) -> list[float]:
    """The mean reward of each step of GRPO."""
    tokenizer = chat_tokenizer(**ENVIRONMENT)
    episodes, model = Episodes(tokenizer=tokenizer, **ENVIRONMENT), llama(tokenizer)

    sft = SFTConfig(folder, max_steps=sft_steps, per_device_train_batch_size=64, learning_rate=3e-3, **QUIET)
    SFTTrainer(model, sft, train_dataset=episodes.demonstrations(2048), processing_class=tokenizer).train()

    grpo = GRPOConfig(
        folder, max_steps=grpo_steps, per_device_train_batch_size=128, num_generations=16, max_completion_length=24, top_k=0,
        learning_rate=1e-4, lr_scheduler_type="constant", scale_rewards="none", logging_steps=1, **QUIET,
    )  # fmt: skip
    prompts = episodes.dataset(256)
    trainer = GRPOTrainer(model, episodes.reward, args=grpo, train_dataset=prompts, processing_class=tokenizer)
    trainer.train()
    return [line["reward"] for line in trainer.state.log_history if "reward" in line]


if __name__ == "__main__":
    rewards = main()
    print(
        f"mean reward of the first five steps {sum(rewards[:5]) / 5:.2f}, of the last five {sum(rewards[-5:]) / 5:.2f}"
    )
