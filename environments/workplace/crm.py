"""The customer database: who buys or may buy, who of the company looks after them, and notes on them."""

from __future__ import annotations

from typing import Any, Literal

from ..state import State
from ..tool import ToolError, tool
from .dates import read_day
from .lookup import Row, address, matches, new_id, one, shown, told
from .mail import Mail

SCHEMA = """
CREATE TABLE customers (
    id TEXT, name TEXT, company TEXT, email TEXT, status TEXT, owner TEXT, last_contact TEXT, follow_up TEXT
);
CREATE TABLE notes (customer TEXT, text TEXT);
"""
CustomerStatus = Literal["lead", "qualified", "proposal", "won", "lost"]


class Customers(Mail):
    """Tools of the customer records. Only people of the address book are given customers."""

    crm: Any = State.sqlite(SCHEMA)

    @tool
    def search_customers(
        self,
        query: str | None = None,
        status: CustomerStatus | None = None,
        owner: str | None = None,
        last_contact_until: str | None = None,
    ) -> Row:
        """Search customers, those first who were contacted longest ago. Without arguments, all of them.

        Args:
            query: Words of the name, company or email address.
            owner: The address of whoever of the company looks after them.
            last_contact_until: Only those not contacted after this day, YYYY-MM-DD.
        """
        last = read_day(last_contact_until).isoformat() if last_contact_until else "9"
        who = address(owner) if owner else None
        return shown(
            [
                _shown(row)
                for row in self.crm.rows("SELECT * FROM customers ORDER BY last_contact, id")
                if (row["last_contact"] or "") <= last
                and matches(query or "", row["name"], row["company"], row["email"])
                and status in (None, row["status"])
                and who in (None, row["owner"])
            ]
        )

    @tool
    def read_customer(self, customer: str) -> Row:
        """Look a customer up, with the notes.

        Args:
            customer: The number, such as C1234.
        """
        row = self._customer(customer)
        notes = self.crm.rows("SELECT text FROM notes WHERE customer = ? ORDER BY text", row["id"])
        return _shown(row) | {"notes": [note["text"] for note in notes]}

    @tool(writes=True)
    def add_customer(self, name: str, company: str, email: str, owner: str, status: CustomerStatus = "lead") -> Row:
        """Add a customer.

        Args:
            owner: The address of whoever of the company looks after them.
        """
        name, company, mail = told(name, "the name"), told(company, "the company"), address(email)
        if row := self.crm.row("SELECT id FROM customers WHERE email = ?", mail):
            raise ToolError(f"{mail} is customer {row['id']} already")
        number = new_id(self.crm, "customers", "C", mail)
        row = (number, name, company, mail, status, self.known(owner), None, None)
        self.crm.run("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)
        return {"customer": number}

    @tool(writes=True)
    def set_customer_status(self, customer: str, status: CustomerStatus) -> str:
        """Set a customer's status."""
        return self._change_customer(customer, "status", status)

    @tool(writes=True)
    def assign_customer(self, customer: str, owner: str) -> str:
        """Give a customer to somebody of the company.

        Args:
            owner: An address.
        """
        return self._change_customer(customer, "owner", self.known(owner))

    @tool(writes=True)
    def set_follow_up(self, customer: str, day: str) -> str:
        """Set the day on which a customer is to be contacted next.

        Args:
            day: YYYY-MM-DD.
        """
        return self._change_customer(customer, "follow_up", read_day(day).isoformat())

    @tool(writes=True)
    def add_customer_note(self, customer: str, text: str) -> str:
        """Add a note to a customer."""
        self.crm.run("INSERT INTO notes VALUES (?, ?)", self._customer(customer)["id"], told(text, "the note"))
        return "added"

    @tool(writes=True)
    def delete_customer(self, customer: str) -> str:
        """Delete a customer and the notes for good."""
        number = self._customer(customer)["id"]
        self.crm.run("DELETE FROM customers WHERE id = ?", number)
        self.crm.run("DELETE FROM notes WHERE customer = ?", number)
        return "deleted"

    def _customer(self, number: str) -> Row:
        return one(self.crm, "customers", "customer", number)

    def _change_customer(self, customer: str, column: str, value: str) -> str:
        # The column is one of our own names.
        self.crm.run(f"UPDATE customers SET {column} = ? WHERE id = ?", value, self._customer(customer)["id"])
        return "changed"


def _shown(row: Row) -> Row:
    return {("customer" if key == "id" else key): value for key, value in row.items()}
