"""A tool, a task file and credit for each turn in twelve lines.

swannery check examples/wiki.py
"""

from swannery.environments import Env, jsonl, register, reward, tool

ARTICLES = {
    "swan": "Swans are the largest waterfowl. A mute swan weighs about 11 kg and has about 25000 feathers.",
    "bewick": "Bewick's swan is the smallest swan of Europe. It breeds in the tundra of the Pechora delta.",
    "trumpeter": "The trumpeter swan of Alaska is the heaviest bird of North America.",
    "cygnet": "A cygnet is a young swan. It can swim on its 2nd day.",
}


@register("examples/Wiki-v0", max_turns=4, tool_timeout_s=5.0, floor=0.25)
class Wiki(Env):
    tasks = jsonl("wiki.jsonl", prompt="q", answer="a")

    @tool
    async def search(self, query: str, k: int = 3) -> list[str]:
        """Search the articles for a word."""
        return [text for text in ARTICLES.values() if query.lower() in text.lower()][:k]

    @reward
    def correct(self, turn): return turn.answer.strip(".").lower() == self.task.answer.lower()  # fmt: skip # noqa: E704

    @reward(weight=0.01, when="turn")
    def useful(self, turn): return -1.0 if any(not call.ok for call in self.calls) else 0.0  # fmt: skip # noqa: E704
