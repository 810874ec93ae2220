"""What the support agent and the customer can do, each on the bank's tables.

The agent's tools carry out whatever they are told, as a back office does: who may have what, and after which check, is the
policy's business and the agent's. Only reading asks for an identified customer. Nothing draws an id, so that the order of
actions leaves no trace, and what can be done twice is the same when it is.
"""

from __future__ import annotations

from typing import Any, Literal

from ..state import State
from ..tool import ToolError, tool
from .world import SCHEMA, euros

Row = dict[str, Any]
Department = Literal["fraud", "credit", "complaints", "payments"]


class Desk:
    """The tools, over a database that holds the whole bank."""

    db: Any = State.sqlite(SCHEMA)
    task: Any

    @tool
    def find_customer(self, name: str, birth: str) -> Row:
        """Find a customer's number.

        Args:
            birth: Date of birth, YYYY-MM-DD.
        """
        return self._found("SELECT id AS customer FROM customers WHERE name = ? AND birth = ?", "customer", name, birth)

    @tool(writes=True)
    def send_code(self, customer: str) -> str:
        """Send a one-time code to the customer's phone."""
        self._open()
        self._found("SELECT id FROM customers WHERE id = ?", "customer", customer)
        self.db.run("INSERT OR IGNORE INTO codes VALUES (?)", customer)
        return "sent"

    @tool(writes=True)
    def check_code(self, customer: str, code: str) -> str:
        """Check the code that the customer has read out. If it is right, the customer is identified."""
        self._open()
        self._found("SELECT customer FROM codes WHERE customer = ?", "code sent to", customer)
        if (customer, code.strip()) != (self.task.metadata["customer"], self.task.metadata["code"]):
            raise ToolError("the code is wrong")
        self.db.run("INSERT OR IGNORE INTO identified VALUES (?)", customer)
        return "identified"

    @tool
    def customer_file(self, customer: str) -> Row:
        """A customer's tier, and how many fees were waived this year."""
        self._identified(customer)
        row = self._found("SELECT tier, waived FROM customers WHERE id = ?", "customer", customer)
        return {"tier": row["tier"], "fees_waived_this_year": row["waived"]}

    @tool
    def list_accounts(self, customer: str) -> list[Row]:
        """A customer's accounts and their balances."""
        self._identified(customer)
        rows = self.db.rows("SELECT id, label, cents FROM accounts WHERE customer = ? ORDER BY id", customer)
        return [{"account": row["id"], "label": row["label"], "balance": euros(row["cents"])} for row in rows]

    @tool
    def list_cards(self, customer: str) -> list[Row]:
        """A customer's cards: kind, status, and limits."""
        self._identified(customer)
        rows = self.db.rows("SELECT * FROM cards WHERE customer = ? ORDER BY id", customer)
        return [
            {"card": r["id"], "kind": r["kind"], "status": r["status"], "cash": r["cash"], "online": r["online"]}
            for r in rows
        ]

    @tool
    def list_transactions(self, account: str) -> list[Row]:
        """Payments and fees of an account, the latest first."""
        self._identified(self.owner(account))
        rows = self.db.rows("SELECT * FROM transactions WHERE account = ? ORDER BY date DESC, id", account)
        return [
            {"id": r["id"], "date": r["date"], "text": r["text"], "amount": euros(r["cents"]), "kind": r["kind"]}
            for r in rows
        ]

    @tool(writes=True)
    def block_card(self, card: str, reason: Literal["lost", "stolen"]) -> str:
        """Block a card for good."""
        self._open()
        self.owner(card)
        self.db.run("UPDATE cards SET status = ? WHERE id = ?", f"blocked: {reason}", card)
        return "blocked"

    @tool(writes=True)
    def replace_card(self, card: str, express: bool = False) -> str:
        """Order a new card for a blocked one."""
        self._open()
        self.owner(card)
        if not self.db.row("SELECT 1 FROM cards WHERE id = ? AND status LIKE 'blocked%'", card):
            raise ToolError(f"{card} is not blocked")
        self.db.run("INSERT OR REPLACE INTO replacements VALUES (?, ?)", card, int(express))
        return "ordered"

    @tool(writes=True)
    def set_limit(self, card: str, kind: Literal["cash", "online"], amount: int) -> str:
        """Set a card's daily limit in euros. A raise waits until the customer has confirmed it."""
        self._open()
        self.owner(card)
        if not 0 < amount <= 100_000:
            raise ToolError(f"a limit is from 1 to 100000 euros, got {amount}")
        self.db.run("DELETE FROM pending WHERE card = ? AND kind = ?", card, kind)
        if amount > self.db.row("SELECT * FROM cards WHERE id = ?", card)[kind]:
            self.db.run("INSERT INTO pending VALUES (?, ?, ?)", card, kind, amount)
            return "waits for the customer's confirmation in the app"
        self._set(card, kind, amount)
        return "set"

    @tool(writes=True)
    def dispute_payment(self, payment: str, reason: Literal["unknown", "double", "not_received"]) -> str:
        """Dispute a payment: unknown to the customer, charged double, or paid for what was not received."""
        self._open()
        self._found("SELECT id FROM transactions WHERE id = ? AND kind = 'payment'", "payment", payment)
        self.db.run("INSERT OR REPLACE INTO disputes VALUES (?, ?)", payment, reason)
        return "disputed"

    @tool(writes=True)
    def waive_fee(self, fee: str) -> str:
        """Give a fee back."""
        self._open()
        row = self._found("SELECT account, cents FROM transactions WHERE id = ? AND kind = 'fee'", "fee", fee)
        if not self.db.run("INSERT OR IGNORE INTO waivers VALUES (?)", fee):
            raise ToolError(f"{fee} is waived already")
        self.db.run("UPDATE accounts SET cents = cents + ? WHERE id = ?", row["cents"], row["account"])
        self.db.run("UPDATE customers SET waived = waived + 1 WHERE id = ?", self.owner(row["account"]))
        return "waived"

    @tool(writes=True)
    def transfer_own(self, source: str, target: str, amount: float) -> str:
        """Move euros between two accounts of one customer."""
        self._open()
        cents = round(amount * 100)
        if self.owner(source) != self.owner(target) or source == target:
            raise ToolError("source and target must be two accounts of one customer")
        if not 0 < cents <= self._found("SELECT cents FROM accounts WHERE id = ?", "account", source)["cents"]:
            raise ToolError(f"{amount:g} euros cannot be moved: the balance does not reach")
        self.db.run("UPDATE accounts SET cents = cents - ? WHERE id = ?", cents, source)
        self.db.run("UPDATE accounts SET cents = cents + ? WHERE id = ?", cents, target)
        self.db.run("INSERT INTO transfers VALUES (?, ?, ?)", source, target, cents)
        return "moved"

    @tool(writes=True)
    def close_ticket(self) -> str:
        """Close the ticket: the request is done."""
        self._open()
        self.db.run("INSERT INTO ticket VALUES ('closed', '', '')")
        return "closed"

    @tool(writes=True)
    def hand_over(self, department: Department, about: str) -> str:
        """Hand the ticket over to people.

        Args:
            about: What it is about: the number of the card, payment or fee, or of the account to be debited.
        """
        self._open()
        self.db.run("INSERT INTO ticket VALUES ('handed over', ?, ?)", department, about.strip())
        return "handed over"

    @tool(by="user")
    def read_one_time_code(self) -> str:
        """The code that has arrived on your phone."""
        self._found("SELECT customer FROM codes WHERE customer = ?", "code for", self.task.metadata["customer"])
        return self.task.metadata["code"]

    @tool(by="user", writes=True)
    def confirm_in_app(self) -> str:
        """Confirm what waits for you in the app."""
        rows = self.db.rows("SELECT * FROM pending")
        mine = [row for row in rows if self.owner(row["card"]) == self.task.metadata["customer"]]
        if not mine:
            raise ToolError("nothing waits for a confirmation")
        for row in mine:
            self._set(row["card"], row["kind"], row["amount"])
            self.db.run("DELETE FROM pending WHERE card = ? AND kind = ?", row["card"], row["kind"])
        return "confirmed"

    @tool(by="user", writes=True)
    def freeze_card_in_app(self, card: str) -> str:
        """Freeze a card of yours until you find it."""
        if not self.db.run("UPDATE cards SET status = 'frozen' WHERE id = ? AND status = 'active'", card):
            raise ToolError("only an active card can be frozen")
        return "frozen"

    @tool(by="user", writes=True)
    def upload_document(self, kind: Literal["police_report", "receipt"]) -> str:
        """Upload a document."""
        self.db.run("INSERT OR IGNORE INTO documents VALUES (?, ?)", self.task.metadata["customer"], kind)
        return "uploaded"

    def owner(self, number: str) -> str:
        """Whose a card, account, payment or fee is. ToolError where there is no such thing."""
        table = {"K": "cards", "A": "accounts", "C": "customers"}.get(number[:1])
        if number[:1] == "T":
            row = self._found("SELECT account FROM transactions WHERE id = ?", "payment or fee", number)
            return self.owner(row["account"])
        if table is None:
            raise ToolError(f"there is nothing with the number {number[:20]!r}")
        column = "id" if table == "customers" else "customer"
        return self._found(f"SELECT {column} AS customer FROM {table} WHERE id = ?", table[:-1], number)["customer"]

    def _found(self, sql: str, what: str, *values: Any) -> Row:
        row = self.db.row(sql, *values)
        if row is None:
            raise ToolError(f"no {what} {', '.join(str(value)[:40] for value in values)}")
        return row

    def _set(self, card: str, kind: str, amount: int) -> None:
        column = {"cash": "cash", "online": "online"}[kind]
        self.db.run(f"UPDATE cards SET {column} = ? WHERE id = ?", amount, card)

    def _identified(self, customer: str) -> None:
        if self.db.row("SELECT 1 FROM identified WHERE customer = ?", customer) is None:
            raise ToolError(f"{customer[:20]} is not identified")

    def _open(self) -> None:
        if self.db.row("SELECT 1 FROM ticket") is not None:
            raise ToolError("the ticket is closed or handed over: nothing more can be done on it")
