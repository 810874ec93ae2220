"""What the checker can find: each rule has an id, and each finding one line of cause and one of cure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CURES: dict[str, str] = {
    "gymnasium.checker": "make Gymnasium's own checker silent: do not override reset, step or the spaces",
    "gymnasium.vector": "keep all state on self or in declared State, so that make_vec's rows are like single environments",
    "space.observation": "answer with text or Message objects of valid Unicode",
    "space.json": "use only text, numbers and plain data in messages and turns",
    "levels.constructor": "make the constructor accept every level that `levels` names",
    "declaration": "mend the declaration as the message says",
    "declaration.docs": "name only existing arguments in the docstring's Args section",
    "schema.round_trip": "annotate arguments with types whose JSON form is read back as the same value",
    "schema.default": "give the argument a default of its annotated type",
    "task.ambiguous": "put into the prompt what tells the tasks apart, or set prompt_identifies_task = False",
    "task.empty": "give the task a prompt",
    "task.plain": "keep plain text, numbers, lists and dicts in metadata: int(x) for numpy numbers",
    "reset.crash": "make task(rng) and start() work for every seed; draw again where a draw is impossible",
    "reset.slow": "prepare what is shared in __init__, not in every reset",
    "step.slow": "profile the tools and rewards; precompute in start(), or make slow tools async",
    "step.blocks_loop": "await asyncio.sleep and async clients, or make the tool a plain function: it gets a thread",
    "step.crash": "let no exception but ToolError leave a tool, and none leave respond() or a reward",
    "determinism.seed": "draw everything from the rng that task(rng) is given, and nothing from random, np.random or a clock",
    "determinism.step": "make tools and respond() depend on the task, the state and self.np_random alone",
    "determinism.process": "do not depend on hash(), set order, id(), the process id or the host",
    "isolation.episode": "set the episode's state in start(), or declare it as State, so that reset() begins anew",
    "isolation.concurrent": "keep nothing in class attributes, globals or default arguments that an episode changes",
    "oracle.missing": "give tasks an answer or gold calls, or write oracle()",
    "oracle.crash": "make oracle() give a Turn in every state that its own turns lead to",
    "oracle.maximum": "let the oracle's episode earn the full reward: mend the answer, the gold calls or the grader",
    "oracle.truncated": "raise max_turns or max_tool_calls until the oracle fits",
    "floor.null": "give nothing for an empty answer; check that the gold calls change the state",
    "floor.random": "give nothing for chance: compare exactly, or declare the floor that chance reaches",
    "floor.echo": "do not reward words that the prompt already holds",
    "floor.shotgun": "compare the whole answer: many guesses in one answer must earn nothing",
    "floor.majority": "balance the answers, or declare the floor that the commonest answer reaches",
    "floor.long": "do not reward length",
    "floor.injection": "never read a verdict out of the answer",
    "floor.idle_calls": "reward the state after the calls, not that there were calls",
    "floor.cheat": "close the gap that this cheat policy uses",
    "leak.prompt": "take the answer out of what is shown, or set answer_in_prompt = True where it is to be found there",
    "leak.reply": "do not tell the answer in a reply or an error message",
    "leak.schema": "take the answer out of tool names and descriptions",
    "leak.info": "keep the answer out of info: wrappers and logs may show it",
    "reward.value": "return a number in the declared range from every reward (bool counts); declare low= and high= if needed",
    "grader.nondeterministic": "grade by the task and the turn alone; no chance, no clock",
    "grader.impure": "let rewards read and never write: change state in tools",
    "fault.swallowed": "let crashes travel: a fault is left out and counted, a made-up number is trained on",
    "tool.undeclared_write": "declare @tool(writes=True)",
    "tool.timeout": "end every call in its timeout_s, or await with one",
    "snapshot.copy": "bind clients and locks in __init__, where they are shared; keep plain data in start()",
    "snapshot.restore": "keep what an episode changes on self or in declared State, not in globals or closures",
    "replay.differs": "make an episode a function of its seed and its turns",
    "teardown.thread": "end in close() what start() or a tool began",
    "teardown.task": "await or cancel every asyncio task before the step ends",
    "teardown.file": "close files where they are opened: with open(...)",
    "teardown.process": "wait for child processes, or use @tool(isolated=True)",
}
"""Every rule and its cure."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an environment."""

    rule: str
    env_id: str
    cause: str

    def __post_init__(self) -> None:
        assert self.rule in CURES, self.rule

    @property
    def cure(self) -> str:
        return CURES[self.rule]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cure": self.cure}

    def __str__(self) -> str:
        return f"{self.env_id}  {self.rule}: {self.cause}\n    cure: {self.cure}"
