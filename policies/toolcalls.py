"""One tool call's text to a ToolCall, by structure. No regular expression runs over model text more than once.

<function=NAME>
<parameter=KEY>
VALUE (any lines)
</parameter>
</function>
"""

from __future__ import annotations

from ..messages import ToolCall


def parse_call(text: str) -> ToolCall | str:
    """The call, or what is wrong with it in words that a policy can act on."""
    lines = text.strip("\n").split("\n")
    if not (lines[0].startswith("<function=") and lines[0].endswith(">")):
        return f"a call begins with <function=NAME>, got {lines[0][:40]!r}"
    if lines[-1] != "</function>" or len(lines) < 2:
        return "a call ends with </function>"
    name = lines[0][len("<function=") : -1]
    if not name.strip():
        return "the function's name is empty"
    arguments: dict[str, str] = {}
    at, end = 1, len(lines) - 1
    while at < end:
        opening = lines[at]
        if not (opening.startswith("<parameter=") and opening.endswith(">")):
            return f"expected <parameter=KEY> or </function>, got {opening[:40]!r}"
        key = opening[len("<parameter=") : -1]
        if key in arguments:
            return f"the parameter {key!r} came twice"
        close = next((i for i in range(at + 1, end) if lines[i] == "</parameter>"), None)
        if close is None:
            return f"the parameter {key!r} was never closed with </parameter>"
        arguments[key] = "\n".join(lines[at + 1 : close])
        at = close + 1
    return ToolCall(name, arguments)
