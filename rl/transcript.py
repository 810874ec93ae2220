"""One rollout for a person's eyes: the conversation, its rewards, and the strip of tokens that shows what is trained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from ..messages import Message
from ..policies.tokenizer import Tokenizer
from .trajectory import Trajectory

STYLES = {"given": "dim", "sampled": "bold green", "forced": "bold yellow"}


def print_transcript(console: Console, branches: Sequence[Trajectory], tokenizer: Tokenizer) -> None:
    """Print the conversation of a rollout and the tokens of each of its branches."""
    last = branches[-1]
    if last.outcome.kind == "fault":
        console.print(f"left out: {last.outcome} {last.messages[0].text}", markup=False)
        return
    turn = len(last.turns) - sum(message.role == "assistant" for message in last.messages)  # below 0: worked examples
    for message in last.messages:
        rewards = ""
        if message.role == "assistant":
            turn += 1
        if message.role == "assistant" and turn > 0:
            record = last.turns[turn - 1]
            parts = [f"{name} {value:+.2f}" for name, value in record.rewards.items()]
            budget = "" if record.budget is None else f" of {record.budget}"
            parts += (
                [f"{record.num_reasoning_tokens}{budget} reasoning tokens"] if message.reasoning is not None else []
            )
            parts += ["budget hit"] if record.budget_hit else []
            parts += [f"malformed: {record.malformed}"] if record.malformed else []
            rewards = ", ".join(parts)
        console.print(Panel(_body(message), title=message.role, title_align="left", subtitle=rewards or None))
    console.print(f"{last.env_id}  task {last.task_seed}  reward {last.reward:.2f}  {last.outcome}", markup=False)
    for branch in branches:
        legend = Text("tokens: ")
        for kind, style in STYLES.items():
            legend.append(f" {kind} ", style)
        console.print(legend)
        console.print(_strip(branch, tokenizer))


def _body(message: Message) -> Text:
    text = Text()
    if message.reasoning is not None:
        text.append(f"{message.reasoning}\n", "italic dim")
    text.append(message.text)
    for call in message.tool_calls:
        arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
        text.append(f"{call.name}({arguments})", "cyan")
    return text


def _strip(branch: Trajectory, tokenizer: Tokenizer) -> Text:
    text = Text()
    for segment in branch.segments:
        for token, forced in zip(segment.token_ids, segment.forced, strict=True):
            kind = "given" if not segment.sampled else "forced" if forced else "sampled"
            shown = tokenizer.decode([int(token)])
            text.append(shown.replace("\n", "⏎\n" if shown.endswith("\n") else "⏎"), STYLES[kind])
            text.append("|", "dim")
    return text
