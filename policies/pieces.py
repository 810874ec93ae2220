"""Text in pieces: control tokens, and plain text between them that can never become one.

A Hugging Face tokenizer finds its control tokens wherever they are spelt, in data too. Here the text of a template is split
where the template itself wrote a control token, and what lies between is encoded by a copy of the tokenizer that knows none:

    data --guard--> template --split--> [id | plain text ...] --encode--> ids

`guard` breaks what is spelt like a control token, or could become part of one at the edge of the data, by a mark: a character
that occurs nowhere else. `split` takes the marks out again.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

import tokenizers

from ..messages import legible

Piece = int | str
"""The id of a control token, or plain text."""

_MARKS = [chr(code) for code in (*range(0xFDD0, 0xFDF0), *range(0xE000, 0xF900))]
"""Characters that mean nothing, noncharacters first: text that uses all of these is not met."""


class Pieces:
    """Splits, encodes and spells for one tokenizer. `control` maps each control token to its id."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        added: dict[int, Any] = {i: token for i, token in backend.get_added_tokens_decoder().items() if token.content}
        self.control = {token.content: i for i, token in added.items()}
        self.spelling = {i: token for token, i in self.control.items()}
        plain = json.loads(backend.to_str()) | {"added_tokens": [], "post_processor": None}
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain | {"truncation": None, "padding": None}))
        self._added = {token.content: token for token in added.values()}
        longest_first = sorted(self.control, key=len, reverse=True)
        self._spelt = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        model = plain["model"]
        unknown = {
            model.get("unk_token"),
            *([model["vocab"][model["unk_id"]][0]] if model.get("unk_id") is not None else []),
        }
        fallback = {f"<0x{byte:02X}>" for byte in range(256)}
        self._forbidden = {i for token, i in self.control.items() if token not in unknown | fallback}
        """What plain text must not give: any control token but those that stand for what the vocabulary lacks."""
        self._starts = {t[:n] for t in self.control for n in range(1, len(t))}
        self._ends = {t[n:] for t in self.control for n in range(1, len(t))}
        self._longest = max(map(len, self.control), default=0)
        self._encoded = functools.lru_cache(maxsize=4096)(self._encode)

    # Data on its way through a template.

    def mark_for(self, texts: Iterable[str]) -> str:
        """A character that no text holds."""
        used = "".join(texts)
        return next(mark for mark in _MARKS if mark not in used and _escaped(mark) not in used)

    def guard(self, text: str, mark: str) -> str:
        """Data in which no control token is spelt, nor begins, ends or goes on at its edges. Blanks at the edges stay there."""
        inner = text.strip()
        if not inner:
            return text
        at = text.index(inner)
        before, after = text[:at], text[at + len(inner) :]
        heads = (inner[:n] for n in range(1, min(len(inner), self._longest) + 1))
        tails = (inner[-n:] for n in range(1, min(len(inner), self._longest) + 1))
        open_before = any(head in self._ends for head in heads) or any(inner in token for token in self.control)
        open_after = any(tail in self._starts for tail in tails)
        inner = self._spelt.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", inner)
        return f"{before}{mark if open_before else ''}{inner}{mark if open_after else ''}{after}"

    def spells_control(self, text: str) -> str | None:
        """The first control token that data spells."""
        found = self._spelt.search(text)
        return found[0] if found else None

    # Text to pieces and back.

    def split(self, text: str, mark: str = "") -> list[Piece]:
        """The control tokens that the text spells, and what is between them. Some tokens swallow the blanks beside them."""
        pieces: list[Piece] = []
        at = 0
        for found in self._spelt.finditer(text):
            start, end = found.span()
            token = self._added[found[0]]
            if token.single_word and (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
                continue
            before = text[at:start].rstrip() if token.lstrip else text[at:start]
            pieces += [before, self.control[found[0]]] if before else [self.control[found[0]]]
            at = end
            while token.rstrip and at < len(text) and text[at].isspace():
                at += 1
        if at < len(text):
            pieces.append(text[at:])
        if not mark:
            return pieces
        bare = lambda text: text.replace(mark, "").replace(_escaped(mark), "")  # noqa: E731
        clean = [piece if isinstance(piece, int) else bare(piece) for piece in pieces]
        return [piece for piece in clean if piece != ""]

    def flat(self, pieces: Iterable[Piece]) -> str:
        """The text of pieces, control tokens spelt out."""
        return "".join(self.spelling[piece] if isinstance(piece, int) else piece for piece in pieces)

    def after(self, pieces: Sequence[Piece], start: int) -> list[Piece]:
        """The pieces from the character `start` of their flat text on. A control token that begins before it is left out."""
        rest: list[Piece] = []
        at = 0
        for piece in pieces:
            length = len(self.spelling[piece] if isinstance(piece, int) else piece)
            if at >= start:
                rest.append(piece)
            elif at + length > start and isinstance(piece, str):
                rest.append(piece[start - at :])
            at += length
        return rest

    def encode(self, pieces: Sequence[Piece], start: int = 0, cuts: Iterable[int] = ()) -> list[int]:
        """The ids of pieces from the character `start` of their flat text on. Plain text is encoded as one up to the next control
        token or cut, so that it has the ids it has when said in two parts."""
        ids: list[int] = []
        ends = sorted({cut for cut in cuts if cut > start}, reverse=True)
        run, at = "", start
        for piece in self.after(pieces, start):
            if isinstance(piece, int):
                ids += [*self._encoded(run), piece]
                run, at = "", at + len(self.spelling[piece])
                continue
            while ends and ends[-1] <= at:
                ends.pop()
            while ends and ends[-1] <= at + len(piece):
                head = ends.pop() - at
                ids += self._encoded(run + piece[:head])
                run, piece, at = "", piece[head:], at + head
            run, at = run + piece, at + len(piece)
        return ids + list(self._encoded(run))

    def spell(self, ids: Iterable[int]) -> str:
        """The text of ids, control tokens spelt out."""
        parts: list[str] = []
        run: list[int] = []
        for token in ids:
            if (spelt := self.spelling.get(token)) is None:
                run.append(token)
                continue
            if run:
                parts.append(self.decode(run))
                run = []
            parts.append(spelt)
        return "".join(parts) + (self.decode(run) if run else "")

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def _encode(self, text: str) -> tuple[int, ...]:
        text = legible(text)
        ids = encode_data(
            text, lambda part: self._plain.encode(part, add_special_tokens=False).ids, self._forbidden, self._spelt
        )
        if not self._forbidden.isdisjoint(ids):
            raise ValueError(
                f"this tokenizer makes a control token of plain text, of {text[:40]!r}: it cannot render it"
            )
        return tuple(ids)


def encode_data(
    text: str, encode: Callable[[str], Sequence[int]], control: Set[int], spelt: re.Pattern[str]
) -> Sequence[int]:
    """The ids of plain text. A vocabulary may hold a control token's spelling as a word, or have merges that make it: then each
    such word is encoded in two parts."""
    ids = encode(text)
    if control.isdisjoint(ids):
        return ids
    cuts = [0, *(found.start() + 1 for found in spelt.finditer(text)), len(text)]
    return [token for start, end in zip(cuts, cuts[1:], strict=False) for token in encode(text[start:end])]


def _escaped(mark: str) -> str:
    """A mark as JSON writes it in ASCII, where a template asks for that."""
    return f"\\u{ord(mark):04x}"
