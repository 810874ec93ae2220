"""Planted bugs that are told when the class is made: source, and what the message says."""

HEAD = "from swannery.environments import *\n"

SOURCES = {
    "duplicate tool": (
        "class E(Env):\n    @tool\n    def a(self) -> str:\n        'A.'\n    @tool\n    def a(self) -> str:\n        'B.'\n",
        "second tool named 'a'",
    ),
    "duplicate reward": (
        "class E(Env):\n    @reward\n    def a(self): return 1\n    @reward\n    def a(self): return 0\n",
        "second reward named 'a'",
    ),
    "tool without docstring": ("class E(Env):\n    @tool\n    def a(self) -> str: ...\n", "needs a docstring"),
    "unannotated argument": (
        "class E(Env):\n    @tool\n    def a(self, x) -> str:\n        'A.'\n",
        "annotate the argument 'x'",
    ),
    "star arguments": (
        "class E(Env):\n    @tool\n    def a(self, *x: int) -> str:\n        'A.'\n",
        "name each argument",
    ),
    "tool without self": ("class E(Env):\n    @tool\n    def a(x: int) -> str:\n        'A.'\n", "write self first"),
    "zero timeout": (
        "class E(Env):\n    @tool(timeout_s=0)\n    def a(self) -> str:\n        'A.'\n",
        "positive number",
    ),
    "async and isolated": (
        "class E(Env):\n    @tool(isolated=True)\n    async def a(self) -> str:\n        'A.'\n",
        "only plain functions",
    ),
    "reward that returns text": (
        "class E(Env):\n    @reward\n    def a(self, turn) -> str: return 'x'\n",
        "return a number",
    ),
    "reward of three": (
        "class E(Env):\n    @reward\n    def a(self, turn, more): return 1\n",
        "write (self) or (self, turn)",
    ),
    "reward at sometimes": (
        "class E(Env):\n    @reward(when='now')\n    def a(self): return 1\n",
        "'turn' or 'episode'",
    ),
    "infinite weight": ("class E(Env):\n    @reward(weight=1e999)\n    def a(self): return 1\n", "finite number"),
    "gate with a weight": (
        "class E(Env):\n    @reward(gate=True, weight=.5)\n    def a(self): return 1\n",
        "a gate has neither",
    ),
    "no reward": ("@register('zoo/a-v0')\nclass E(Env):\n    def task(self, rng): ...\n", "has no @reward"),
    "no task": ("@register('zoo/b-v0')\nclass E(Env):\n    @reward\n    def a(self): return 1\n", "draws no tasks"),
    "unknown limit": ("@register('zoo/c-v0', max_turn=3)\nclass E(Env): ...\n", "Did you mean 'max_turns'"),
    "user without a state": ("ScriptedUser({'start': [Rule('x', go='nowhere')]})\n", "no state 'nowhere'"),
    "broken schema script": ("State.sqlite('CREATE TABEL x')\n", "the script fails"),
}
