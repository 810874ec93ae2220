"""What can be done with tickets, and the actions of runbooks.

The tools carry out what they are told, as far as it is possible at all: what may be done is the policy's business. Whatever a
ticket's columns say can be corrected; an action cannot be taken back.
"""

from __future__ import annotations

import re
from typing import Any

from ..tool import ToolError, tool
from .records import Records, Row, matches, shown
from .schema import Action, Category, Priority, Status

_CODE = re.compile(r"[A-Z]\d{2}")
_ON = {
    "unlock_account": ("person", "account", "locked", "ok"),
    "reset_mfa": ("person", "mfa", "registered", "none"),
    "send_reset_link": ("person", "password", None, "link sent"),
    "renew_certificate": ("laptop", "state", None, "ok"),
    "reset_network": ("laptop", "state", None, "ok"),
    "clean_disk": ("laptop", "state", None, "ok"),
    "order_repair": ("laptop", "state", None, "in repair"),
    "clear_print_queue": ("printer", "state", None, "ok"),
    "order_toner": ("printer", "state", None, "toner ordered"),
    "restart_service": ("service", "state", None, "up"),
    "clear_cache": ("service", "state", None, "up"),
    "grant_licence": ("licence", "", None, ""),
    "grant_access": ("folder", "", None, ""),
    "isolate_device": ("laptop", "isolated", 0, 1),
    "end_sessions": ("person", "account", None, "signed out"),
}
"""What an action is on, the column that it changes, the value that it needs there (None: any), and the value afterwards."""
_TABLES = {
    "person": ("people", "id"),
    "laptop": ("assets", "tag"),
    "printer": ("assets", "tag"),
    "service": ("services", "name"),
}


class Desk(Records):
    """Tools on tickets."""

    @tool
    def search_tickets(
        self,
        query: str | None = None,
        status: Status | None = None,
        queue: str | None = None,
        requester: str | None = None,
    ) -> Row:
        """Search tickets, the newest first. Without arguments, all of them.

        Args:
            query: Words of the subject or the text.
            queue: The name of a queue.
            requester: The number of the person who opened it.
        """
        where, who = self._queue(queue) if queue else None, self.person(requester)["id"] if requester else None
        return shown(
            [
                {key: row[key] for key in ("id", "opened", "requester", "subject", "status", "queue")}
                for row in self.db.rows("SELECT * FROM tickets ORDER BY opened DESC, id")
                if status in (None, row["status"])
                and where in (None, row["queue"])
                and who in (None, row["requester"])
                and matches(query or "", row["subject"], row["body"])
            ]
        )

    @tool
    def read_ticket(self, ticket: str) -> Row:
        """Read a ticket, with its notes, links and approvals.

        Args:
            ticket: The number, such as INC1234.
        """
        row = self._ticket(ticket)
        del row["genuine"]
        number = row["id"]
        notes = self.db.rows("SELECT code FROM notes WHERE ticket = ? ORDER BY code", number)
        links = self.db.rows("SELECT original FROM links WHERE ticket = ? ORDER BY original", number)
        approvals = self.db.rows("SELECT approver, status FROM approvals WHERE ticket = ? ORDER BY approver", number)
        return row | {
            "notes": [note["code"] for note in notes],
            "duplicate_of": [link["original"] for link in links],
            "approvals": approvals,
        }

    @tool(writes=True)
    def set_category(self, ticket: str, category: Category) -> str:
        """Set a ticket's category."""
        return self._change(ticket, category=category)

    @tool(writes=True)
    def set_priority(self, ticket: str, priority: Priority) -> str:
        """Set a ticket's priority; P1 is the highest."""
        return self._change(ticket, priority=priority)

    @tool(writes=True)
    def assign_queue(self, ticket: str, queue: str) -> str:
        """Put a ticket into a queue; its status stays."""
        return self._change(ticket, queue=self._queue(queue))

    @tool(writes=True)
    def add_note(self, ticket: str, code: str) -> str:
        """Add a work note to a ticket: a code."""
        self.db.run("INSERT OR IGNORE INTO notes VALUES (?, ?)", self._ticket(ticket)["id"], _code(code))
        return "added"

    @tool(writes=True)
    def remove_note(self, ticket: str, code: str) -> str:
        """Take a work note off a ticket."""
        if not self.db.run("DELETE FROM notes WHERE ticket = ? AND code = ?", self._ticket(ticket)["id"], _code(code)):
            raise ToolError(f"{ticket[:40]} has no note {code[:10]}")
        return "removed"

    @tool(writes=True)
    def link_duplicate(self, ticket: str, original: str) -> str:
        """Link a ticket to the one that it repeats; its status becomes duplicate."""
        number, first = self._ticket(ticket)["id"], self._ticket(original)["id"]
        if number == first:
            raise ToolError("a ticket is no duplicate of itself")
        self.db.run("DELETE FROM links WHERE ticket = ?", number)
        self.db.run("INSERT INTO links VALUES (?, ?)", number, first)
        return self._change(number, status="duplicate")

    @tool(writes=True)
    def request_approval(self, ticket: str, approver: str) -> str:
        """Ask somebody for an approval; the ticket waits for it.

        Args:
            approver: The person's number.
        """
        number, who = self._ticket(ticket)["id"], self.person(approver)["id"]
        row = self.db.row("SELECT status FROM approvals WHERE ticket = ? AND approver = ?", number, who)
        if row is not None:
            raise ToolError(f"{who} has been asked already: {row['status']}")
        self.db.run("INSERT INTO approvals VALUES (?, ?, 'requested')", number, who)
        return self._change(number, status="waiting")

    @tool(writes=True)
    def escalate(self, ticket: str, queue: str, reason: str) -> str:
        """Escalate a ticket to a queue, with a reason code."""
        return self._change(ticket, queue=self._queue(queue), reason=_code(reason), status="escalated")

    @tool(writes=True)
    def resolve(self, ticket: str, code: str) -> str:
        """Resolve a ticket with a resolution code."""
        return self._change(ticket, resolution=_code(code), status="resolved")

    @tool(writes=True)
    def reopen(self, ticket: str) -> str:
        """Open a resolved ticket again."""
        if self._ticket(ticket)["status"] != "resolved":
            raise ToolError(f"{ticket[:40]} is not resolved")
        return self._change(ticket, resolution="", status="open")

    @tool(writes=True)
    def run_action(self, ticket: str, action: Action, target: str) -> str:
        """Run the action of a runbook for a ticket. It cannot be taken back.

        Args:
            target: What it is run on: a user's number, an asset's tag, or the name of a service, licence or folder. Licences \
and folders are granted to the ticket's requester.
        """
        row = self._ticket(ticket)
        on = _ON[action][0]
        name = self._grant(row["requester"], on, target) if on in ("licence", "folder") else self._act(action, target)
        self.db.run("INSERT INTO actions VALUES (?, ?, ?)", row["id"], action, name)
        return "done"

    def _grant(self, person: str, kind: str, name: str) -> str:
        row = self.one("resources", "name", kind, name)
        if row["kind"] != kind:
            raise ToolError(f"{row['name']} is a {row['kind']}, not a {kind}")
        if not self.db.run("INSERT OR IGNORE INTO grants VALUES (?, ?)", person, row["name"]):
            raise ToolError(f"{person} has {row['name']} already")
        return row["name"]

    def _act(self, action: str, target: str) -> str:
        """Change what an action is on; its number, tag or name."""
        on, column, needed, after = _ON[action]
        table, key = _TABLES[on]
        row = self.person(target) if on == "person" else self.one(table, key, on, target)
        if on in ("laptop", "printer") and row["kind"] != on:
            raise ToolError(f"{action} is for a {on}; {row['tag']} is a {row['kind']}")
        if needed is not None and row[column] != needed:
            raise ToolError(f"{action} is not possible: {column} of {row[key]} is {row[column]}")
        self.db.run(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", after, row[key])
        return row[key]

    def _ticket(self, number: str) -> Row:
        return self.one("tickets", "id", "ticket", number)

    def _queue(self, name: str) -> str:
        row = self.db.row("SELECT name FROM queues WHERE name = ? COLLATE NOCASE", name.strip())
        if row is None:
            raise ToolError(f"there is no queue {name[:40]!r}; the queues are {', '.join(self.list_queues())}")
        return row["name"]

    def _change(self, ticket: str, **columns: Any) -> str:
        # The columns are our own names.
        places = ", ".join(f"{column} = ?" for column in columns)
        self.db.run(f"UPDATE tickets SET {places} WHERE id = ?", *columns.values(), self._ticket(ticket)["id"])
        return "done"


def _code(text: str) -> str:
    code = text.strip().upper()
    if not _CODE.fullmatch(code) or not code.isascii():
        raise ToolError(f"a code is a letter and two digits, such as N12, got {text[:20]!r}")
    return code
