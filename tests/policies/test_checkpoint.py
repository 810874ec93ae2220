"""Policies on disk: saved, sharded, read by transformers, refused where they are broken."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swannery.kernels.packing import Packing
from swannery.policies import HybridModel, Policy, PolicyError, load_policy, policy_files, preset, weights_hash
from swannery.policies.checkpoint import INDEX, SINGLE, load_into
from swannery.policies.folder import save_policy
from swannery.policies.huggingface import weights_to_nemotron_h
from swannery.rl.run_folder import write_folder


@pytest.fixture
def folder(policy: Policy, tmp_path: Path) -> Path:
    write_folder(tmp_path / "policy", policy_files(policy))
    return tmp_path / "policy"


@pytest.mark.parametrize("shard_bytes", [10**9, 50_000])
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_transformers_loads_a_saved_policy_unchanged(policy: Policy, tmp_path: Path, shard_bytes: int) -> None:
    from transformers import AutoModelForCausalLM

    policy.mtp["mtp.layers.0.norm.weight"] = torch.ones(4)
    save_policy(policy, tmp_path / "policy", max_shard_bytes=shard_bytes)
    assert (tmp_path / "policy" / INDEX).exists() is (shard_bytes < 10**9)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32).eval()
    ids = torch.arange(20, 60)
    hidden, _ = policy.model(ids, Packing.build([40], chunk_size=8))
    assert float((policy.model.logits(hidden) - theirs(ids[None]).logits[0]).abs().max()) <= 1e-4


@pytest.mark.parametrize("shard_bytes", [10**9, 50_000])
def test_a_saved_policy_comes_back_bit_for_bit_with_what_it_cannot_use(
    policy: Policy, tmp_path: Path, shard_bytes: int
) -> None:
    policy.mtp["mtp.layers.0.norm.weight"] = torch.randn(4)
    save_policy(policy, tmp_path / "policy", max_shard_bytes=shard_bytes)
    loaded = load_policy(tmp_path / "policy")
    assert weights_hash(loaded.model.state_dict()) == weights_hash(policy.model.state_dict())
    assert weights_hash(loaded.mtp) == weights_hash(policy.mtp)
    assert loaded.model.config == policy.model.config
    assert loaded.tokenizer.encode("What is 12 + 34?") == policy.tokenizer.encode("What is 12 + 34?")
    with pytest.raises(PolicyError, match="exists"):
        save_policy(policy, tmp_path / "policy")


def test_experts_that_are_kept_apart_are_stacked(policy: Policy, folder: Path) -> None:
    """As in checkpoints older than transformers 5, which also say `backbone`."""
    old = {}
    for name, tensor in weights_to_nemotron_h(policy.model.state_dict()).items():
        name = name.replace("model.", "backbone.", 1)
        if ".mixer.experts." in name:
            stem, _, kind = name.rpartition(".")
            old |= {f"{stem}.{e}.{kind}.weight": part.clone() for e, part in enumerate(tensor)}
        else:
            old[name] = tensor.clone()
    save_file(old, folder / SINGLE)
    assert weights_hash(load_policy(folder).model.state_dict()) == weights_hash(policy.model.state_dict())
    old.pop(next(name for name in old if ".experts.2.up_proj" in name))
    save_file(old, folder / SINGLE)
    with pytest.raises(PolicyError, match=r"1 missing; .*experts\.up_proj\[2\] is absent"):
        load_policy(folder)


def test_weights_of_another_architecture_are_refused_and_nothing_is_copied(policy: Policy, folder: Path) -> None:
    other = HybridModel(dataclasses.replace(policy.model.config, expert_size=16))
    before = weights_hash(other.state_dict())
    with pytest.raises(PolicyError, match=r"another architecture.*of another shape.*experts"):
        load_into(other.state_dict(), folder)
    assert weights_hash(other.state_dict()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("lm_head.weight"), r"1 missing; lm_head\.weight is absent"),
        (lambda w: w.update(extra=torch.ones(1)), "1 unknown; extra is \\(1,\\), the model's is absent"),
        (lambda w: w.update({"lm_head.weight": torch.ones(3, 5)}), r"1 of another shape; lm_head\.weight is \(3, 5\)"),
        (lambda w: w["model.norm_f.weight"].fill_(float("nan")), "not finite, in model.norm_f.weight"),
        (lambda w: w["lm_head.weight"].view(-1)[7].fill_(float("inf")), "not finite, in lm_head.weight"),
        (
            lambda w: w.update({f"x.{i}": torch.zeros(0) for i in range(100_000)}),
            "of 1000[0-9]+ tensors 100000 unknown",
        ),
    ],
    ids=["missing", "extra", "mis-shaped", "nan", "inf", "100,000 tensors"],
)
def test_a_broken_checkpoint_gets_one_clear_error(folder: Path, change: object, message: str) -> None:
    weights = load_file(folder / SINGLE)
    change(weights)  # type: ignore[operator]
    save_file(weights, folder / SINGLE)
    with pytest.raises(PolicyError, match=message) as told:
        load_policy(folder)
    assert len(str(told.value)) < 600


@pytest.mark.parametrize("name", ["config.json", SINGLE, "tokenizer.json"])
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    with pytest.raises(PolicyError, match=name):
        load_policy(folder)


def test_shards_that_are_damaged_missing_or_elsewhere_are_named(policy: Policy, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    save_policy(policy, folder, max_shard_bytes=50_000)
    index = json.loads((folder / INDEX).read_text())
    shard = folder / index["weight_map"]["lm_head.weight"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(PolicyError, match=shard.name):
        load_policy(folder)
    shard.unlink()
    with pytest.raises(PolicyError, match=f"lacks 1 of .* shards, such as {shard.name}"):
        load_policy(folder)
    shard.write_bytes(whole)
    index["weight_map"]["elsewhere"] = "../other.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(PolicyError, match="lies outside of the folder"):
        load_policy(folder)
    index["weight_map"]["elsewhere"] = shard.name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(PolicyError, match="lacks 1 tensors that .* says it holds, such as elsewhere"):
        load_policy(folder)


def test_a_pickle_is_never_opened(policy: Policy, folder: Path) -> None:
    (folder / SINGLE).unlink()
    torch.save(policy.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(PolicyError, match=r"pytorch_model\.bin is a pickle, which is never opened"):
        load_policy(folder)


def test_loading_takes_little_more_than_the_model(tmp_path: Path, policy: Policy, folder: Path) -> None:
    """In a process of its own, which has loaded another one before: the peak over the model is a shard, mapped, and a tensor."""
    config = preset("tiny-1m", hidden_size=512, expert_size=1024, num_experts=16, vocab_size=8192)
    save_policy(Policy(HybridModel(config), policy.tokenizer), tmp_path / "large", max_shard_bytes=40 * 2**20)
    program = """
import sys
from pathlib import Path
from swannery.policies import load_policy
def peak():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
small = load_policy(Path(sys.argv[2]))
before = peak()
policy = load_policy(Path(sys.argv[1]))
model = sum(t.nbytes for t in policy.model.state_dict().values())
print((peak() - before) * 1024 - model, model)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "large"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    above, model = map(int, done.stdout.split())
    assert model > 150 * 2**20 and above < 80 * 2**20, above
