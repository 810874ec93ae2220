"""A byte-level BPE tokenizer with single-digit tokens, trained on the environments' own text and saved with the policy.

Merges may cross spaces within a line ("superwords", https://arxiv.org/abs/2503.13423), so the fixed wording of prompts and
of the chat format costs few tokens. Digits are never merged: numbers are read digit by digit.
Control tokens in *data* are encoded as plain text: only the renderer can place a control token.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

CONTROL_TOKENS = (
    "<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
    "</tool_response>", "<tools>", "</tools>",
)  # fmt: skip


class Tokenizer:
    """Text to ids and back. `control` maps each control token to its id."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        self.backend.encode_special_tokens = True
        ids = {token: backend.token_to_id(token) for token in CONTROL_TOKENS}
        if missing := [token for token, token_id in ids.items() if token_id is None]:
            raise ValueError(f"this tokenizer lacks the control tokens {', '.join(missing)} of the chat format")
        self.control: dict[str, int] = {token: token_id for token, token_id in ids.items() if token_id is not None}
        self._encoded = functools.lru_cache(maxsize=16_384)(
            lambda text: tuple(backend.encode(text, add_special_tokens=False).ids)
        )

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn at most `vocab_size` tokens (256 bytes and the control tokens included) from texts."""
        smallest = 256 + len(CONTROL_TOKENS)
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size must hold 256 bytes and the control tokens: at least {smallest}, got {vocab_size}"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(r"\d|[^\d\n]*\n|[^\d\n]+"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(CONTROL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return Tokenizer(backend)

    @staticmethod
    def load(path: Path) -> Tokenizer:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))

    def to_json(self) -> str:
        return self.backend.to_str(pretty=True)

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of plain text. Pieces recur (roles, tool declarations, prompts of a group), so they are remembered."""
        return list(self._encoded(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelt out."""
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def newline_ids(self) -> list[int]:
        """The tokens that end a line."""
        vocabulary = self.backend.get_vocab()
        return sorted(i for token, i in vocabulary.items() if token.endswith("Ċ"))  # Ċ is byte-level BPE's newline

    def sentence_end_ids(self) -> list[int]:
        """The tokens that end with a full stop, a question mark or an exclamation mark, blanks and quotes aside."""
        vocabulary = self.backend.get_vocab()
        return sorted(i for token, i in vocabulary.items() if token.rstrip("ĠĊ\"')").endswith((".", "!", "?")))


class TextRecorder:
    """Stands in for a Tokenizer in a renderer and keeps every piece of text that it would encode: what to train on."""

    def __init__(self) -> None:
        self.control = {token: number for number, token in enumerate(CONTROL_TOKENS)}
        self.pieces: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.pieces.append(text)
        return [len(CONTROL_TOKENS)]

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError("a TextRecorder only records")
