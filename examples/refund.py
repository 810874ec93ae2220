"""A database and a user who knows what must be asked for, in twenty lines.

swannery check examples/refund.py
"""

from swannery.environments import END, Env, Rule, ScriptedUser, State, Task, ToolCall, register, reward, tool


@register("examples/Refund-v0", max_turns=8, reasoning_budgets=(0,))
class Refund(Env):
    prompt_identifies_task = False
    db = State.sqlite("CREATE TABLE orders (id INTEGER, paid REAL, back REAL)")
    user = ScriptedUser({"start": [Rule("order", say="Order {order}.", go="told")], "told": [Rule("refunded", go=END)]})

    def task(self, rng):
        case = {"order": int(rng.integers(100, 1000)), "amount": float(rng.integers(5, 99))}
        return Task("I want my money back.", gold=(ToolCall("refund", case),), metadata=case)

    def start(self):
        self.db.fill("orders", [(self.task.metadata["order"], self.task.metadata["amount"], 0), (7, 5, 0)])

    @tool
    def look_up(self, order: int) -> dict:
        """What was paid for an order, and what was given back."""
        return self.db.row("SELECT * FROM orders WHERE id = ?", order) or {}

    @tool(writes=True)
    def refund(self, order: int, amount: float) -> int:
        """Give an amount back; the number of orders that this changed."""
        return self.db.run("UPDATE orders SET back = ? WHERE id = ? AND paid >= ?", amount, order, amount)

    @reward
    def state(self): return self.hash() == self.after(self.task.gold).hash()  # fmt: skip # noqa: E704
