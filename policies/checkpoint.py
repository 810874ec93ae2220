"""Weights as safetensors, in one file or in shards with an index: read tensor by tensor, written shard by shard.

Reading checks names and shapes against the model before anything is copied, and never holds more than one tensor beside it.
Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .huggingface import place_of, weights_to_nemotron_h
from .weights import is_finite

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MTP = "mtp."
"""What multi-token prediction's weights are called. They are kept with a policy as they are."""


class PolicyError(ValueError):
    """A policy folder that cannot be used, with what is wrong."""


@dataclass(frozen=True)
class Entry:
    """A tensor on disk, not yet read."""

    path: Path
    name: str
    shape: tuple[int, ...]


def list_tensors(folder: Path) -> dict[str, Entry]:
    """The tensors of a folder by name. PolicyError on a missing, truncated or foreign file."""
    entries: dict[str, Entry] = {}
    for path, names in _files(folder).items():
        with _opened(path) as file:
            found = list(file.keys())
            if names is not None and (lost := sorted(set(names) - set(found))):
                raise PolicyError(f"{path} lacks {len(lost)} tensors that {INDEX} says it holds, such as {lost[0]}")
            for name in found:
                entries[name] = Entry(path, name, tuple(file.get_slice(name).get_shape()))
    return entries


def load_into(weights: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Read a folder's tensors into those of a model (its state dict), and return multi-token prediction's, which it has not.

    PolicyError on the first of: a file that cannot be read, tensors that are missing, too many or of another shape (before
    anything is copied), values that are not finite (then the model is not to be used).
    """
    entries, mtp = list_tensors(folder), {}
    places = {name: place_of(name) for name in entries if not name.startswith(MTP)}
    _check_shapes(weights, entries, places, folder)
    for entry, tensor in _read(entries.values()):
        if not is_finite(tensor):
            raise PolicyError(f"{entry.path} holds values that are not finite, in {entry.name}")
        if entry.name.startswith(MTP):
            mtp[entry.name] = tensor
            continue
        name, expert = places[entry.name]
        target = weights[name] if expert is None else weights[name][expert]
        with torch.no_grad():
            target.copy_(tensor)
    return mtp


def save_weights(
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    mtp: Mapping[str, Tensor] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> list[str]:
    """Write weights under their published names, in as many shards as needed, and return the files' names."""
    published = {**weights_to_nemotron_h(weights), **(mtp or {})}
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in published.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        _write(shards[0], folder / SINGLE)
        return [SINGLE]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write(shard, folder / name)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in published.values())},
        "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2))
    return [*names, INDEX]


def _write(shard: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in shard.items()}, path, metadata={"format": "pt"})


def _files(folder: Path) -> dict[Path, Sequence[str] | None]:
    """The files that hold weights, with the names that the index promises of each."""
    if (folder / SINGLE).is_file():
        return {folder / SINGLE: None}
    if not (folder / INDEX).is_file():
        pickled = next((p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in sorted(folder.glob(pattern))), None)
        told = f"; {pickled} is a pickle, which is never opened: save it as safetensors" if pickled else ""
        raise PolicyError(f"{folder} is no policy folder: {SINGLE} is missing{told}")
    try:
        weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
        by_file: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            if Path(file).name != file:
                raise ValueError(f"{file!r} lies outside of the folder")
            by_file.setdefault(folder / file, []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{folder / INDEX} cannot be read: {error!r}") from None
    if missing := [path.name for path in by_file if not path.is_file()]:
        raise PolicyError(f"{folder} lacks {len(missing)} of {len(by_file)} shards, such as {missing[0]}")
    return dict(by_file)


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"{path} cannot be read as safetensors: {error}") from None


def _read(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Tensor]]:
    """Tensors one by one, file by file: what a closed file had mapped is given back."""
    by_path: dict[Path, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(entry.path, []).append(entry)
    for path, wanted in by_path.items():
        with _opened(path) as file:
            for entry in wanted:
                yield entry, file.get_tensor(entry.name)


def _check_shapes(
    weights: Mapping[str, Tensor],
    entries: Mapping[str, Entry],
    places: Mapping[str, tuple[str, int | None]],
    folder: Path,
) -> None:
    """Each of the model's tensors is there once, whole or expert by expert, and nothing else is."""
    wanted: dict[str, tuple[int, ...]] = {}
    found: dict[str, tuple[int, ...]] = {}
    for source, (name, expert) in places.items():
        key = name if expert is None else f"{name}[{expert}]"
        found[key] = entries[source].shape
    apart = {name for name, expert in places.values() if expert is not None}
    for name, tensor in weights.items():
        parts = {f"{name}[{i}]": tuple(tensor.shape[1:]) for i in range(len(tensor))} if name in apart else None
        wanted |= parts or {name: tuple(tensor.shape)}
    if wanted == found:
        return
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unknown": [name for name in found if name not in wanted],
        "of another shape": [name for name in found if name in wanted and found[name] != wanted[name]],
    }
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)
    first = next(names[0] for names in kinds.values() if names)
    raise PolicyError(
        f"{folder} is of another architecture: of {len(found)} tensors {counts}; {first} is {found.get(first, 'absent')}, the "
        f"model's is {wanted.get(first, 'absent')}"
    )
