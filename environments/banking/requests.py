"""What customers want: for each wish the words, what they know when asked, and the steps that the policy asks for.

A step is plain data: ["call", tool, arguments] by the agent, ["user", tool, arguments, words that ask for it] by the customer,
["ask", topic, words, times told] for a question. What the bank does not allow ends in a hand-over instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .world import CAPS, MERCHANTS, World, euros, in_words

Step = list[Any]


@dataclass
class Case:
    """A wish, and what belongs to it."""

    kind: str
    wish: str
    steps: list[Step]
    facts: dict[str, Any] = field(default_factory=dict)
    then: str = ""
    """A change of mind."""
    has: list[str] = field(default_factory=list)
    """Documents that the customer could upload."""
    card: str = ""
    """The card that the customer would freeze."""


def call(tool: str, **arguments: Any) -> Step:
    return ["call", tool, arguments]


def user(tool: str, words: str, **arguments: Any) -> Step:
    return ["user", tool, arguments, words]


def ask(topic: str, words: str, times: int = 1) -> Step:
    return ["ask", topic, words, times]


CLOSE = call("close_ticket")


def hand_over(department: str, about: str) -> Step:
    return call("hand_over", department=department, about=about)


class Wishes:
    """Draws one case for the customer of a world."""

    def __init__(self, world: World) -> None:
        self.world, self.me, self.level = world, world.me, world.level

    def draw(self) -> Case:
        kinds: tuple[Callable[[], Case], ...] = (self.lost_card, self.dispute, self.limit, self.fee, self.transfer)
        if self.level > 1:
            kinds = (*kinds, self.mislaid_card)
        return self.world.one(kinds)()

    def refused(self) -> bool:
        """Whether the bank's policy is against it."""
        return self.level == 3 and self.world.chance(0.4)

    def changes(self) -> bool:
        return self.level == 3 and self.world.chance(0.5)

    def vague(self) -> bool:
        return self.level > 1 and self.world.chance(0.6)

    def which_card(self) -> tuple[list[Any], str, list[Step], dict[str, Any]]:
        """A card, how it is named, and the steps that find it."""
        card = self.world.one(self.me.cards)
        digits, kind = card[0][1:], card[2]
        name = "my card" if self.vague() else self.world.one((f"my {kind} card", f"my card ending in {digits}"))
        steps = [ask("card", "Which of your cards is it?")] if name == "my card" else []
        return (
            card,
            name,
            [*steps, call("list_cards", customer=self.me.id)],
            {"card": f"My {kind} card, ending in {digits}."},
        )

    def lost_card(self) -> Case:
        card, name, steps, facts = self.which_card()
        stolen = self.level > 1 and self.world.chance(0.4)
        wish = self.world.one((f"I have lost {name}.", f"{name[0].upper()}{name[1:]} is lost, I am sure."))
        if stolen:
            wish = self.world.one((f"{name[0].upper()}{name[1:]} was stolen.", f"Somebody has stolen {name}."))
        steps.append(call("block_card", card=card[0], reason="stolen" if stolen else "lost"))
        if stolen:
            steps.append(user("upload_document", "Please upload the police report.", kind="police_report"))
        new, express = self.world.chance(0.6), self.world.chance(0.4)
        wish += " Please block it" + (" and send me a new one" if new else "; I do not need a new one")
        wish += {True: ", by express", False: ", there is no hurry"}[express] + "." if new else "."
        facts |= {
            "reason": "It was stolen." if stolen else "I lost it.",
            "new": f"Yes, {'by express' if express else 'by ordinary post'}." if new else "No new card, please.",
        }
        case = Case("lost_card", wish, steps, facts, has=["police_report"] if stolen else [], card=card[0])
        if new:
            steps.append(call("replace_card", card=card[0], express=express))
            if self.changes():
                steps[-1] = call("replace_card", card=card[0], express=not express)
                case.then = (
                    "About the new card: ordinary post will do."
                    if express
                    else "The new card should come by express after all."
                )
                facts["new"] = f"Yes, {'by ordinary post' if express else 'by express'}."
        elif not stolen and self.changes():
            steps[-1] = user("freeze_card_in_app", "Please freeze the card in your app.", card=card[0])
            case.then = "Oh, now I remember: it is in my locker at the gym. Only mislaid, so do not block it."
            facts["reason"] = "It is only mislaid."
        steps.append(CLOSE)
        return case

    def mislaid_card(self) -> Case:
        card, name, steps, facts = self.which_card()
        wish = self.world.one(
            (
                f"I have mislaid {name}, it must be somewhere at home.",
                f"I cannot find {name}; it is surely in one of my coats, only mislaid.",
            )
        )
        facts["reason"] = "It is only mislaid."
        steps.append(user("freeze_card_in_app", "Please freeze the card in your app.", card=card[0]))
        case = Case("mislaid_card", f"{wish} What can be done until it turns up?", steps, facts, card=card[0])
        if self.changes():
            steps[-1] = call("block_card", card=card[0], reason="lost")
            case.then = (
                "By the way, I have looked everywhere now: it is lost. Please block it; I do not need a new one."
            )
            facts |= {"reason": "It is lost.", "new": "No new card, please."}
        steps.append(CLOSE)
        return case

    def limit(self) -> Case:
        card, name, steps, facts = self.which_card()
        kind = self.world.one(("cash", "online"))
        now, cap = card[4 if kind == "cash" else 5], CAPS[self.me.tier]
        refused, up = self.refused(), self.world.chance(0.7)
        if refused:
            amount = self.world.amount(cap + 100, cap + 3000, 100)
        elif up:
            amount = self.world.amount(now + 100, 2000, 100)
        else:
            amount = self.world.amount(100, now - 100, 100)
        words = "cash withdrawals" if kind == "cash" else "online payments"
        wish = self.world.one(
            (
                f"Please set the limit for {words} with {name} to {amount} euros.",
                f"I would like a limit of {amount} euros for {words} with {name}.",
            )
        )
        facts["amount"] = f"{amount} euros for {words}."
        case = Case("limit", wish, steps, facts)
        steps.insert(0, call("customer_file", customer=self.me.id))
        if refused:
            steps.append(hand_over("credit", card[0]))
            return case
        if self.changes():
            amount = amount + 100 if up and amount < 2000 else amount - 100 if amount - 100 not in (0, now) else amount
            case.then = f"And I have thought about the limit: {amount} euros is what I want."
            facts["amount"] = f"{amount} euros for {words}."
        steps.append(call("set_limit", card=card[0], kind=kind, amount=amount))
        if amount > now:
            steps.append(user("confirm_in_app", "Please confirm the new limit in your app."))
        steps.append(CLOSE)
        return case

    def dispute(self) -> Case:
        variant = self.world.one(("plain", "double", "old", "large", "receipt")[: (1, 2, 5)[self.level - 1]])
        if self.level == 2 and self.world.chance(0.4):
            variant = "receipt"
        account = self.me.accounts[0][0]
        shop = self.world.one(MERCHANTS)
        self.me.transactions[:] = [row for row in self.me.transactions if row[3] != shop]
        low, high = {"large": (200_100, 500_000), "receipt": (50_100, 190_000)}.get(variant, (1_000, 49_000))
        days = int(self.world.rng.integers(70, 200)) if variant == "old" else int(self.world.rng.integers(5, 55))
        payment = self.world.transaction(self.me, shop, int(self.world.rng.integers(low, high)), days_ago=days)
        reason = "not_received" if variant == "receipt" else self.world.one(("unknown", "not_received"))
        words = {"unknown": "I never made it.", "not_received": "What I paid for has never arrived."}[reason]
        wish = f"There is a payment of {euros(payment[4])} euros to {shop} on my account. {words}"
        facts = {"payment": f"{euros(payment[4])} euros to {shop}, on {in_words(payment[2])}.", "reason": words}
        steps = [call("list_transactions", account=account)]
        if variant == "double":
            reason = "double"
            payment = self.world.transaction(
                self.me, shop, payment[4], days_ago=days - int(self.world.rng.integers(1, 4))
            )
            wish = f"{shop} has charged me {euros(payment[4])} euros twice, and I bought there only once."
            facts = {"payment": f"{euros(payment[4])} euros to {shop}.", "reason": "They charged me twice."}
        elif self.vague():
            self.world.transaction(self.me, shop, int(self.world.rng.integers(300, 40_000)))
            wish = f"There is a payment to {shop} that I want back. {words}"
            steps.append(ask("payment", "Which payment is it: of what amount?"))
        steps.insert(0, call("list_accounts", customer=self.me.id))
        case = Case(
            "dispute",
            f"{wish} Please dispute it.",
            steps,
            facts,
            has=["receipt"] if variant == "receipt" else [],
        )
        if variant in ("old", "large"):
            steps.append(hand_over("complaints" if variant == "old" else "fraud", payment[0]))
            return case
        if variant == "receipt":
            steps.append(user("upload_document", "Please upload the receipt.", kind="receipt"))
        steps += [call("dispute_payment", payment=payment[0], reason=reason), CLOSE]
        return case

    def fee(self) -> Case:
        fees = [row for row in self.me.transactions if row[5] == "fee"]
        row, other = self.world.some(fees, 2)
        refused = self.refused()
        row[4], other[4] = 50 * int(self.world.rng.integers(4, 60)), 50 * int(self.world.rng.integers(4, 60)) + 10
        if refused and self.world.chance(0.5):
            self.me.waived = 1
        elif refused:
            row[4] = 50 * int(self.world.rng.integers(61, 160))
        which = f"the {row[3].lower()} of {euros(row[4])} euros"
        wish = f"I was charged {which}. That is not fair, please give it back."
        steps = [call("customer_file", customer=self.me.id), call("list_accounts", customer=self.me.id)]
        steps.append(call("list_transactions", account=row[1]))
        if self.vague():
            wish = "You have charged me a fee, and I would like to have it back."
            steps.append(ask("payment", "Which fee is it?"))
        case = Case("fee", wish, steps, {"payment": f"{which[0].upper()}{which[1:]}.", "reason": "It is not fair."})
        if self.changes() and not refused:
            new = f"the {other[3].lower()} of {euros(other[4])} euros"
            case.then = f"Wait, I mean another one: {new}. Leave the {row[3].lower()} as it is."
            case.facts["payment"], row = f"{new[0].upper()}{new[1:]}.", other
        steps += [hand_over("complaints", row[0])] if refused else [call("waive_fee", fee=row[0]), CLOSE]
        return case

    def transfer(self) -> Case:
        source, target = self.world.some(self.me.accounts, 2)
        refused = self.refused()
        amount = self.world.amount(20, 350)
        names = [source[2].lower(), target[2].lower()]
        wish = f"Please move {amount} euros from my {names[0]} to my {names[1]}."
        facts = {"account": f"From my {names[0]} to my {names[1]}.", "amount": f"{amount} euros."}
        steps = [call("list_accounts", customer=self.me.id)]
        case = Case("transfer", wish, steps, facts)
        if refused and self.world.chance(0.5):
            amount = source[3] // 100 + self.world.amount(10, 900)
            case.wish = f"Please move {amount} euros from my {names[0]} to my {names[1]}."
            facts["amount"] = f"{amount} euros."
            steps.append(hand_over("credit", source[0]))
            return case
        if refused:
            other = self.world.people[1]
            case.wish = (
                f"Please send {amount} euros from my {names[0]} to account {other.accounts[0][0]} of {other.name}."
            )
            facts["account"] = f"From my {names[0]} to account {other.accounts[0][0]}."
            steps.append(hand_over("payments", source[0]))
            return case
        if "savings" in names[1] and self.vague():
            case.wish = f"Please move {amount} euros from my {names[0]} to my savings."
            if "savings" in names[0]:
                case.wish = f"Please move {amount} euros between my savings."
            steps.append(ask("account", "Which account should it go to, and from which account?"))
        if self.changes():
            amount += 10 * int(self.world.rng.integers(1, 5))
            case.then = f"Oh, and please make that {amount} euros."
            facts["amount"] = f"{amount} euros."
        steps += [call("transfer_own", source=source[0], target=target[0], amount=amount), CLOSE]
        return case
