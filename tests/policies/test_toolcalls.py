"""Tool calls read by structure: what is broken gets a verdict, nothing raises, and the work is linear."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.messages import ToolCall, Turn
from swannery.policies import ChatRenderer, Tokenizer
from swannery.policies.toolcalls import MAX_DEPTH, parse_call, parse_json_calls, write_call, write_json_call
from swannery.policies.turns import Kind, Mark, MarkedText, read_turn


def test_a_value_may_span_lines() -> None:
    call = parse_call("\n<function=f>\n<parameter=a>\none\n<b>\ntwo\n</parameter>\n</function>\n")
    assert call == ToolCall("f", {"a": "one\n<b>\ntwo"})


def test_values_of_nemotron_calls_are_text_and_others_are_written_as_json() -> None:
    written = write_call(ToolCall("f", {"a": True, "b": "true", "c": [1, {"d": "é"}]}))
    assert parse_call(written) == ToolCall("f", {"a": "true", "b": "true", "c": '[1, {"d": "é"}]'})


@pytest.mark.parametrize(
    ("block", "verdict"),
    [
        ("", "a call begins with <function=NAME>"),
        ("<function= >\n</function>", "the function's name is empty"),
        ("<function=f>", "a call ends with </function>"),
        ("<function=f>\n<parameter=a>\n1\n</parameter>", "a call ends with </function>"),
        ("<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=a>\n2\n</parameter>\n</function>", "'a' came twice"),
        ("<function=f>\n</function>\n<function=g>\n</function>", "one call a block"),
    ],
)
def test_a_broken_nemotron_call_gets_a_verdict(block: str, verdict: str) -> None:
    found = parse_call(block)
    assert isinstance(found, str) and verdict in found


@pytest.mark.parametrize(
    ("block", "calls"),
    [
        ('{"name": "f", "arguments": {"a": "}{", "b": [1, 2.5, null]}}', [("f", {"a": "}{", "b": [1, 2.5, None]})]),
        ('{"name": "f", "arguments": {}}\n{"name": "g"}', [("f", {}), ("g", {})]),  # two objects in one block
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', [("f", {"a": 1})]),  # arguments as a JSON string
        ('{"name": "f", "arguments": " "}', [("f", {})]),
        ('{"arguments": {"a": "</tool_call>"}, "id": 7, "name": "f"}', [("f", {"a": "</tool_call>"})]),
    ],
)
def test_hermes_calls_are_json_objects(block: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert parse_json_calls(block) == tuple(ToolCall(name, arguments) for name, arguments in calls)


@pytest.mark.parametrize(
    ("block", "verdict"),
    [
        ("", "the block is empty"),
        ('[{"name": "f"}]', "a call is {"),
        ('{"name": "f", "arguments": {}} and {"name": "g"}', "a call is {"),
        ('{"name": "f", "arguments": {}}\n{"name": "g"', "no whole JSON object"),
        ('{"name": "f", "arguments": {"a": "}}', "no whole JSON object"),
        ("{'name': 'f'}", "no whole JSON object"),
        ('{"arguments": {}}', 'the call has no "name"'),
        ('{"name": "f", "arguments": [1]}', "must be an object"),
        ('{"name": "f", "arguments": "{} {}"}', "more than one object"),
        ('{"name": "f", "arguments": "{"}', "\"arguments\" of 'f': the call is no whole JSON"),
        ('{"name": "f", "arguments": {"a": 1, "a": 2}}', "'a' came twice"),
        ('{"name": "f", "name": "g"}', "'name' came twice"),
        ('{"name": "f", "arguments": {"a": NaN}}', "NaN is no JSON"),
        ('{"name": "f", "arguments": {"a": -Infinity}}', "-Infinity is no JSON"),
        ('{"name": "f", "arguments": {"a": 1e999}}', "a number is too large"),
        ('{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}", "a number is too long"),
        ('{"name": "f", "arguments": {"a": "\\ud800"}}', "half a surrogate pair"),
        ('{"name": "f", "arguments": {"\\udfff": 1}}', "half a surrogate pair"),
        ('{"name": "f", "arguments": {"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}}", "nested too deeply"),
        ('{"name": "f", "arguments": {"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_hermes_call_gets_a_verdict(block: str, verdict: str) -> None:
    found = parse_json_calls(block)
    assert isinstance(found, str) and verdict in found, found
    assert len(found) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(min_size=1).filter(str.strip), st.dictionaries(st.text(), JSON, max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_hermes_writes_is_read_back(name: str, arguments: dict[str, Any]) -> None:
    call = ToolCall(name, arguments)
    assert parse_json_calls(write_json_call(call)) == (call,)


@given(st.text('<>/="{}[]:,\\ \nfunctionparameter', max_size=80))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_a_parser_raise(text: str) -> None:
    assert isinstance(parse_call(text), str | ToolCall)
    assert isinstance(parse_json_calls(text), str | tuple)


# The structure around calls, with the Nemotron renderer: control tokens are ids, spelt out here.


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of text in which control tokens are control tokens."""
    ids: list[int] = []
    while text:
        at, token = (
            min((text.find(t), t) for t in tokenizer.control if t in text)
            if any(t in text for t in tokenizer.control)
            else (len(text), "")
        )
        ids += [*tokenizer.encode(text[:at]), *([tokenizer.control[token]] if token else [])]
        text = text[at + len(token) :]
    return ids


CALL = "<tool_call>\n<function=f>\n</function>\n</tool_call>\n"


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("<tool_call>\n<function=f>\n</function>\n", "<tool_call> was never closed"),
        ("<tool_call>\n<function=f>\n" + CALL, "<tool_call> was never closed"),
        ("<tool_call>\nfunction f\n</tool_call>\n", "a call begins with"),
        ("<tool_call>\n<function=f>\n<parameter=a>\n1\n</function>\n</tool_call>\n", "'a' was never closed"),
        ("<tool_call>\n<function=f>\n{}\n{}\n</function>\n</tool_call>\n", "expected <parameter=KEY>"),
        (CALL + "and so", "text between or after"),
        (CALL + "and so\n" + CALL, "text between or after"),
        ("12</tool_call>", "without <tool_call>"),
        (CALL + "</tool_call>", "without <tool_call>"),
    ],
)
def test_broken_calls_are_kept_as_text_with_a_verdict(tokenizer: Tokenizer, said: str, verdict: str) -> None:
    chat = ChatRenderer(tokenizer)
    turn = chat.parse([*ids_of(tokenizer, said), chat.end_id], reasoning=False)
    assert turn.malformed is not None and verdict in turn.malformed and not turn.cut
    assert turn.answer == said and turn.tool_calls == ()
    cut = chat.parse(ids_of(tokenizer, said), reasoning=False)
    assert cut == Turn(said, cut=True)  # what it was about to say is unknown: no mistake


def test_parallel_calls_after_a_sentence(tokenizer: Tokenizer) -> None:
    chat = ChatRenderer(tokenizer)
    turn = chat.parse([*ids_of(tokenizer, f"why\n</think>\nFirst:\n{CALL}{CALL}"), chat.end_id])
    assert turn == Turn("First:", reasoning="why", tool_calls=(ToolCall("f"), ToolCall("f")))


def test_a_call_inside_reasoning_closes_it(tokenizer: Tokenizer) -> None:
    chat = ChatRenderer(tokenizer)
    turn = chat.parse([*ids_of(tokenizer, f"hm\n{CALL}"), chat.end_id])
    assert turn == Turn("", reasoning="hm", tool_calls=(ToolCall("f"),))


def test_reasoning_that_never_ends_is_no_answer(tokenizer: Tokenizer) -> None:
    chat = ChatRenderer(tokenizer)
    turn = chat.parse([*ids_of(tokenizer, "12</tool_call>"), chat.end_id])
    assert turn == Turn("", reasoning="12</tool_call>", malformed="the reasoning was never closed with </think>")


def test_control_tokens_inside_a_call_are_text_of_its_values(tokenizer: Tokenizer) -> None:
    chat = ChatRenderer(tokenizer)
    said = (
        "<tool_call>\n<function=f>\n<parameter=a>\n<think></think><|im_start|>\n</parameter>\n</function>\n</tool_call>"
    )
    turn = chat.parse([*ids_of(tokenizer, said), chat.end_id], reasoning=False)
    assert turn.tool_calls == (ToolCall("f", {"a": "<think></think><|im_start|>"}),)


@given(st.lists(st.integers(0, 400), max_size=60), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_ids_are_parsed_and_some_of_them_have_no_token(
    tokenizer: Tokenizer, ids: list[int], reasoning: bool
) -> None:
    chat = ChatRenderer(tokenizer)
    for said in (ids, [*ids, chat.end_id]):
        turn = chat.parse(said, reasoning=reasoning)
        assert turn.cut == (not said or said[-1] != chat.end_id)
        assert (turn.reasoning is not None) == reasoning


# Linear in the ids, by counting.


class CountedIds(Sequence[int]):
    """Ids that count how often one is looked at."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.looks = ids, 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        self.looks += len(self.ids[index]) if isinstance(index, slice) else 1
        return self.ids[index]

    def __iter__(self) -> Iterator[int]:
        for token in self.ids:
            self.looks += 1
            yield token


class CountedTokenizer:
    """Counts the ids that are decoded and the characters that come of it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.control, self.encode, self.tokenizer, self.decoded = tokenizer.control, tokenizer.encode, tokenizer, 0

    def decode(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return self.tokenizer.decode(ids)


def lines_run(work: Callable[[], Any]) -> int:
    """How many lines of Python ran."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize(
    "unit",
    ["<tool_call>x", "</think>x", "<think>x", "</tool_call>x", "<tool_call></think>", CALL, "<tool_call>\n{", "x\n"],
)
def test_parsing_is_linear(tokenizer: Tokenizer, unit: str) -> None:
    counts = []
    for repeats in (200, 400):
        counted = CountedTokenizer(tokenizer)
        chat = ChatRenderer(counted)  # type: ignore[arg-type]
        ids = CountedIds([*ids_of(tokenizer, unit) * repeats, chat.end_id])
        lines = lines_run(lambda chat=chat, ids=ids: chat.parse(ids))
        assert ids.looks <= 2 * len(ids) and counted.decoded <= len(ids)
        counts.append(lines)
    assert counts[1] <= 2.1 * counts[0]


def test_a_block_of_many_objects_is_read_in_linear_time() -> None:
    block = '{"name": "f", "arguments": {"a": "x"}}\n'
    counts = [lines_run(lambda n=n: parse_json_calls(block * n)) for n in (200, 400)]
    assert counts[1] <= 2.1 * counts[0]


def test_twenty_thousand_unclosed_marks_are_one_pass() -> None:
    text = "<tool_call>x" * 20_000
    marks = [Mark(at, at + 11, Kind.CALL) for at in range(0, len(text), 12)]
    lines = lines_run(lambda: read_turn(MarkedText(text, marks), None, reasoning=True, cut=False))
    assert lines < 100
