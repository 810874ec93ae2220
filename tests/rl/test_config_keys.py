"""The configuration's keys, frozen: one is added or renamed on purpose, in this list, or not at all."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from swannery.rl import RunConfig
from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.section import Section

KEYS = {
    "": "name output seed runtime num_threads checkpoint_every trace_every imports",
    "environments": "id weight options reasoning_budgets",
    "policy": "preset vocab_size folder lora_rank lora_alpha exact_replay",
    "sft": "steps batch_size takes_per_task learning_rate warmup_steps decay_share by cut_share balance_rate aux_loss",
    "rl": "steps prompts_per_step group_size updates_per_step learning_rate decay_share temperature top_k top_p old_policy entropy_share "
    "replay_routes balance_rate lookahead in_flight",
    "correction": "kind unit low high max_error",
    "kl": "coefficient value gradient",
    "shaping": "overlong_filter overlong_buffer overlong_penalty reasoning_length answer_length shortest_bonus low_effort",
    "curriculum": "enabled pool_size easy hard width min_tries",
    "generation": "max_new_tokens budget_grace context_size num_slots micro_batch_tokens timeout_s",
    "evaluation": "num_tasks split",
}
ALGORITHM_KEYS = {
    "grpo": "name baseline scale clip_low clip_high dual_clip average credit rewards",
    "dr_grpo": "name baseline scale clip_low clip_high dual_clip max_tokens",
    "dapo": "name baseline scale clip_low clip_high dual_clip refills",
    "gspo": "name baseline scale clip_low clip_high",
    "cispo": "name baseline scale weight_low weight_high",
    "rloo": "name baseline scale max_tokens",
    "reinforce_pp": "name baseline scale clip_low clip_high dual_clip gamma",
    "maxrl": "name clip_low clip_high dual_clip",
    "ppo": "name clip_low clip_high dual_clip gamma lam critic_learning_rate critic_updates value_clip",
}


def sections(kind: type[Section], name: str = "") -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set()}
    for key, field in kind.model_fields.items():
        annotation: Any = field.annotation
        inner = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
        if key == "algorithm":
            continue
        if isinstance(inner, type) and issubclass(inner, Section):
            found |= sections(inner, key)
        else:
            found[name].add(key)
    return found


def test_the_common_keys_are_these_and_at_most_80() -> None:
    assert sections(RunConfig) == {name: set(keys.split()) for name, keys in KEYS.items()}
    assert sum(len(keys.split()) for keys in KEYS.values()) + 1 <= 80  # and [algorithm]


def test_the_keys_of_algorithms_are_these_and_at_most_12_each() -> None:
    found = {name: set(kind.model_fields) for name, kind in ALGORITHMS.items()}
    assert found == {name: set(keys.split()) for name, keys in ALGORITHM_KEYS.items()}
    assert max(len(keys) for keys in found.values()) <= 12
