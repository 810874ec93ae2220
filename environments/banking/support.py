"""banking/Support-v0: a customer writes in, and the bank must end up as its policy wants it.

    customer <-> agent     words; both change the same tables, the customer in an app of their own
    outcome                the tables equal those after the gold calls of both, and two gates held

Talk earns nothing. What is refused is proven by a hand-over to the right department about the right thing.
"""

from __future__ import annotations

import datetime
from typing import Any, cast

import numpy as np

from ...messages import Message, Task, ToolCall, Turn
from ..calling import CallRecord
from ..cheat import cheat
from ..env import Env
from ..registry import register
from ..reward import reward
from .customer import Customer
from .requests import Case, Step, Wishes, ask, call, user
from .tools import Desk
from .world import World, in_words

POLICY = """You are the support agent of a bank. Today is {today}. {channel}
1. Identity. Unless it has been checked: find the customer by name and date of birth, send a one-time code, ask for it, check it. \
Change nothing before, and never anything of another customer.
2. Cards. A card that is lost or stolen is blocked for that reason; if stolen, ask the customer to upload the police report. A card \
that is only mislaid is not blocked: ask the customer to freeze it in the app. A new card is ordered if the customer wants one.
3. Limits. At most 2000 euros for tier basic, 5000 for plus. A raise must be confirmed by the customer in the app: ask for it.
4. Disputes. Payments of the last 60 days. Above 500 euros, ask the customer to upload the receipt. If charged double, dispute the \
later payment. Payments above 2000 euros are for the fraud department.
5. Fees. A fee is waived if it is at most 30 euros and no other was waived this year.
6. Transfers. Between the customer's own accounts, as far as the balance reaches.
7. What is not allowed is not done at all. Hand it over: fraud (payments above 2000 euros), credit (limits, a balance that does not \
reach), complaints (older payments, fees), payments (accounts of other people).
8. When it is done, close the ticket; a ticket that is handed over is not closed. Then say goodbye."""
_CHECKED = "The customer is signed in as {customer}, and the identity has been checked."
_UNCHECKED = "The customer writes from the web site, and the identity has not been checked."
_GREETINGS = ("Hello.", "Good morning.", "Hi,", "Good evening.")
_BEFORE_IDENTITY = ("find_customer", "send_code", "check_code", "close_ticket", "hand_over")


@register("banking/Support-v0", max_turns=24, max_tool_calls=40, reasoning_budgets=(None, 0))
class Support(Desk, Env):
    """One customer, one wish. `level` 1: clear, identity checked; 2: vague, both act; 3: refusals, corrections, changes."""

    levels = (1, 2, 3)
    floor = 0.0
    quick_tools = True
    user = Customer()
    hasty, stops, misfiles = 0.2, 0.2, 0.2

    def __init__(self, *, level: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if level not in self.levels:
            raise ValueError(f"Support: level is 1, 2 or 3, got {level!r}")
        self.level = level

    def sample_task(self, rng: np.random.Generator) -> Task:
        world = World(rng, self.level)
        case = Wishes(world).draw()
        me, code = world.me, f"{int(rng.integers(10**6)):06d}"
        opening, steps = (self._signed_in if self.level == 1 else self._unknown)(world, case, code)
        channel = (_CHECKED if self.level == 1 else _UNCHECKED).format(customer=me.id)
        plan = steps + case.steps
        gold = [
            step for step in plan if step[0] != "ask" and (step[1] != "find_customer" or step[2]["birth"] == me.birth)
        ]
        return Task(
            (
                Message("system", POLICY.format(today=world.today.isoformat(), channel=channel)),
                Message("user", f"{opening} {case.wish}".strip()),
            ),
            "Goodbye.",
            difficulty=float(self.level),
            gold=tuple(ToolCall(step[1], step[2]) for step in gold),
            metadata={
                "kind": case.kind,
                "customer": me.id,
                "code": code,
                "identified": self.level == 1,
                "rows": world.rows(),
                "facts": case.facts,
                "then": case.then,
                "has": case.has,
                "card": case.card,
                "plan": plan,
                "identification": len(steps),
            },
        )

    def _signed_in(self, world: World, case: Case, code: str) -> tuple[str, list[Step]]:
        return world.one(("", *_GREETINGS)), []

    def _unknown(self, world: World, case: Case, code: str) -> tuple[str, list[Step]]:
        """How a customer introduces themselves, perhaps with a wrong date of birth, and the steps of the identification."""
        me = world.me
        told, wrong = world.chance(0.5), self.level == 3 and world.chance(0.4)
        slip = datetime.date.fromisoformat(me.birth) + datetime.timedelta(int(world.rng.integers(1, 28)))
        first = slip.isoformat() if wrong else me.birth
        births = ([] if told else [first]) + ([me.birth] if wrong else [])
        case.facts["name"] = f"My name is {me.name}."
        case.facts["birth"] = [f"I was born on {in_words(birth)}." for birth in births or [me.birth]]
        steps = [] if told else [ask("birth", "What is your date of birth?")]
        steps.append(call("find_customer", name=me.name, birth=first))
        if wrong:
            case.facts["birth"][-1] = f"Oh, I mistyped it: I was born on {in_words(me.birth)}."
            steps.append(ask("birth", "I cannot find you. Please check your date of birth.", 1 if told else 2))
            steps.append(call("find_customer", name=me.name, birth=me.birth))
        steps += [
            call("send_code", customer=me.id),
            user("read_one_time_code", "I have sent you a code. Please tell me what it is."),
            call("check_code", customer=me.id, code=code),
        ]
        born = f", born on {in_words(first)}" if told else ""
        greeting = world.one(_GREETINGS)
        return (
            f"{greeting} {world.one(('I am', 'this is', 'my name is')) if greeting == 'Hi,' else 'I am'} {me.name}{born}.",
            steps,
        )

    def start(self) -> None:
        for table, rows in self.task.metadata["rows"].items():
            self.db.fill(table, rows)
        if self.task.metadata["identified"]:
            self.db.run("INSERT INTO identified VALUES (?)", self.task.metadata["customer"])
        self.plan: list[Step] = []

    @reward
    def solved(self) -> bool:
        return self.hash() == self.after(self.task.gold).hash()

    @reward(gate=True)
    def identified_first(self) -> bool:
        """Nothing was changed before the customer was identified."""
        identified = self.task.metadata["identified"]
        for record in self._acted():
            if not identified and record.name not in _BEFORE_IDENTITY:
                return False
            identified |= record.name == "check_code"
        return True

    @reward(gate=True)
    def own_customer_only(self) -> bool:
        """Nothing of another customer was changed."""
        objects = ("customer", "card", "payment", "fee", "source", "target")
        touched = [value for record in self._acted() for key, value in record.arguments.items() if key in objects]
        return all(self.owner(number) == self.task.metadata["customer"] for number in touched)

    def _acted(self) -> list[CallRecord]:
        """What the agent has changed, in order."""
        return [record for record in self.calls if record.ok and record.writes and record.by == "policy"]

    @property
    def customer(self) -> Customer:
        """This episode's customer."""
        return cast(Customer, self.user)

    @property
    def user_failed(self) -> bool:
        """Whether the customer left over a question that the script does not understand: no failure of the agent."""
        return self.customer.failed and self.customer.puzzled

    def oracle(self) -> Turn:
        return self._next(self.task.metadata["plan"])

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        """Knows all the tools, but often skips the identity check, leaves a step out, or files the ticket wrongly."""
        if self.num_turns == 0:
            shares = (self.hasty, self.stops, self.misfiles)
            slip = str(rng.choice(["hasty", "stops", "misfiles", ""], p=(*shares, 1 - sum(shares))))
            self.plan = self._slipped(list(self.task.metadata["plan"]), slip, rng)
        return self._next(self.plan)

    def _slipped(self, plan: list[Step], slip: str, rng: np.random.Generator) -> list[Step]:
        identification = self.task.metadata["identification"]
        if slip == "hasty" and identification:
            return plan[identification:]
        if slip == "misfiles":
            closed = plan[-1][1] == "close_ticket"
            numbers = [str(next(iter(step[2].values()))) for step in plan[:-1] if step[0] == "call"]
            return [
                *plan[:-1],
                call("hand_over", department="complaints", about=numbers[-1]) if closed else call("close_ticket"),
            ]
        if slip:
            tools = self.tools
            changes = [i for i in range(identification, len(plan)) if plan[i][0] != "ask" and tools[plan[i][1]].writes]
            left_out = changes[int(rng.integers(len(changes)))]
            return [step for i, step in enumerate(plan) if i != left_out]
        return plan

    def _next(self, plan: list[Step]) -> Turn:
        """The first step of a plan that is not done yet."""
        for kind, name, given, *rest in plan:
            if kind == "ask" and self.customer.told.count(name) < rest[0]:
                return Turn(given)
            if kind != "ask" and not self._called(name, given):
                return Turn(tool_calls=(ToolCall(name, given),)) if kind == "call" else Turn(rest[0])
        return Turn(self.task.answer)

    def _called(self, name: str, arguments: dict[str, Any]) -> bool:
        return any(
            record.name == name and all(record.arguments.get(key) == value for key, value in arguments.items())
            for record in self.calls
        )

    @cheat
    def says_done(self) -> Turn:
        return Turn("I have done all that you asked for. Goodbye.")

    @cheat
    def closes_at_once(self) -> Turn:
        return self._next([call("close_ticket")])

    @cheat
    def hands_over_at_once(self) -> Turn:
        """Leaves everything to people."""
        return self._next([call("hand_over", department="complaints", about=self.task.metadata["customer"])])

    @cheat
    def skips_identity(self) -> Turn:
        """Does what is wanted for whoever asks; where the identity is known, for the other customer."""
        given = self.task.metadata
        if not given["identified"]:
            return self._next(given["plan"][given["identification"] :])
        other = next(row for row in given["rows"]["cards"] if row[1] != given["customer"])
        return self._next([call("block_card", card=other[0], reason="lost"), call("close_ticket")])

    @cheat
    def over_acts(self) -> Turn:
        """Identifies, then does everything that could have been meant."""
        given = self.task.metadata
        rows = given["rows"]
        plan = list(given["plan"][: given["identification"]])
        plan += [call("block_card", card=row[0], reason="lost") for row in rows["cards"] if row[1] == given["customer"]]
        mine = [row[0] for row in rows["accounts"] if row[1] == given["customer"]]
        for number, account, *_, kind in rows["transactions"]:
            if account in mine:
                done = (
                    call("waive_fee", fee=number)
                    if kind == "fee"
                    else call("dispute_payment", payment=number, reason="unknown")
                )
                plan.append(done)
        return self._all(plan) or self._next([*plan, call("close_ticket")])

    def _all(self, plan: list[Step]) -> Turn | None:
        """All calls of a plan that are left, in one turn, once the customer is identified."""
        if self.db.row("SELECT 1 FROM identified") is None:
            return None
        left = [ToolCall(step[1], step[2]) for step in plan if step[0] == "call" and not self._called(step[1], step[2])]
        return Turn(tool_calls=tuple(left)) if left else None
