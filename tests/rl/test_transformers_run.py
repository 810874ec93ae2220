"""A transformers model through the one loop: all weights or LoRA, in step or ahead, stopped and gone on with."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from swannery.environments import Env, Task, Turn, register, reward
from swannery.policies import Tokenizer, TransformersPolicy, open_policy
from swannery.policies.fetch import TEMPLATE
from swannery.policies.training import finished_files
from swannery.rl import ConfigError, RunFolder
from swannery.rl.config import RunConfig, load_config
from swannery.rl.controller import Controller, Interrupted
from swannery.rl.display import Display
from swannery.rl.preflight import preflight
from swannery.rl.run_folder import write_folder

pytestmark = pytest.mark.filterwarnings("ignore")


@register("test/Longwinded-v0", reasoning_budgets=(None,))
class Longwinded(Env):
    """Pays by the letter, so that a random policy's rollouts differ."""

    def task(self, rng: np.random.Generator) -> Task:
        return Task(f"Say {rng.integers(1000)}.", "0")

    @reward
    def letters(self, turn: Turn) -> float:
        return min(len(turn.answer) / 10, 1.0)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        return Turn("0" * int(rng.integers(1, 9)))


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama of random weights with the chat template of SmolLM2."""
    work = tmp_path_factory.mktemp("llama")
    (work / "tokenizer.json").write_text(tokenizer.to_json())
    spoken = PreTrainedTokenizerFast(tokenizer_file=str(work / "tokenizer.json"), eos_token="<|im_end|>")
    spoken.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        )
    )  # fmt: skip
    write_folder(work / "policy", finished_files(TransformersPolicy(model.eval(), spoken)))
    return work / "policy"


def config(folder: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "num_threads": 1, "checkpoint_every": 1,
        "policy": {"folder": str(folder), "lora_rank": changes.pop("lora_rank", 0)},
        "environments": [{"id": "test/Longwinded-v0"}],
        "sft": {"steps": changes.pop("sft_steps", 0), "batch_size": 4, "learning_rate": 3e-2},
        "rl": {"steps": 4, "prompts_per_step": 2, "group_size": 4, "updates_per_step": 1, "learning_rate": 1e-2, **changes},
        "generation": {"max_new_tokens": 12, "context_size": 128, "num_slots": 8},
        "evaluation": {"num_tasks": 2},
    }  # fmt: skip
    return load_config(values)


def run(path: Path, chosen: RunConfig, *, stop_at: int = -1) -> Controller:
    new = not path.exists()
    work = RunFolder.create(path, "run") if new else RunFolder.open(path)
    if new:
        work.write_json("config.json", chosen.model_dump(mode="json"))
    controller = Controller(chosen, work, Display(Console(quiet=True)))
    after = controller.after_step

    def watched(total: int) -> None:
        if controller.state.phase == "rl" and controller.state.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        after(total)

    controller.after_step = watched  # type: ignore[method-assign]
    try:
        controller.run()
    except Interrupted:
        assert stop_at >= 0
    finally:
        controller.close()
        work.release()
    return controller


def losses(path: Path) -> list[tuple[float, float]]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["mismatch"]["max"] < 1e-4 for row in rows if row["phase"] == "rl")  # law 3
    return [(row["loss"], row["grad_norm"]) for row in rows]


@pytest.fixture(scope="module")
def schooled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a warm start of all weights, so that its turns end."""
    path = tmp_path_factory.mktemp("schooled") / "run"
    run(path, config(folder, sft_steps=30, steps=0))
    return path / "policy"


@pytest.mark.parametrize("rank", [0, 4])
def test_it_is_trained_and_goes_on_bit_for_bit(schooled: Path, tmp_path: Path, rank: int) -> None:
    chosen = config(schooled, lora_rank=rank)
    whole = run(tmp_path / "whole", chosen)
    run(tmp_path / "stopped", chosen, stop_at=2)
    resumed = run(tmp_path / "stopped", chosen)
    assert resumed.weights_hash == whole.weights_hash and losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert any(norm > 0 for _, norm in losses(tmp_path / "whole"))
    before, after = open_policy(schooled).model, open_policy(tmp_path / "whole" / "policy").model  # LoRA merged
    assert any(
        not torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )
    if rank:
        newest = max((tmp_path / "whole" / "checkpoints").iterdir())
        assert (newest / "adapter_model.safetensors").is_file() and not (newest / "model.safetensors").exists()


def test_it_runs_ahead_of_its_weights(folder: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", config(folder, lora_rank=2, lookahead=2))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [len(row["trained"]) for row in rows] == [2] * 4 and max(row["lag"]["max"] for row in rows) <= 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": {"folder": "FOLDER", "exact_replay": True}}, "policy.exact_replay is not for a model of the trans"),
        ({"policy": {"preset": "tiny-100k", "lora_rank": 4}}, "name it in policy.folder"),
        ({"environments": [{"id": "math/Arithmetic-v0"}]}, "has no reasoning: give it reasoning_budgets"),
        ({"policy": {"folder": "smolm2"}}, "Did you mean 'smollm2'"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_run(folder: Path, changes: dict[str, Any], said: str) -> None:
    values = config(folder).model_dump(mode="json")
    values |= json.loads(json.dumps(changes).replace("FOLDER", str(folder)))
    with pytest.raises((ConfigError, ValueError), match=said):
        preflight(load_config(values))
