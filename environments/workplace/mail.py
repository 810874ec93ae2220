"""The email database: the address book of the company, what the user has received, and what was sent in this episode.

Sent mail has no id and is never taken back. One mail has one recipient, so that two mails to two people are the only way.
"""

from __future__ import annotations

from typing import Any

from ..state import State
from ..tool import ToolError, tool
from .dates import read_day
from .lookup import Row, address, matches, one, shown, told

SCHEMA = """
CREATE TABLE contacts (address TEXT, name TEXT, team TEXT, role TEXT);
CREATE TABLE emails (id TEXT, sender TEXT, name TEXT, subject TEXT, body TEXT, received TEXT);
CREATE TABLE labels (email TEXT, label TEXT, PRIMARY KEY (email, label));
CREATE TABLE sent (kind TEXT, about TEXT, recipient TEXT, subject TEXT, body TEXT);
"""


class Mail:
    """Tools of the user's mailbox."""

    email: Any = State.sqlite(SCHEMA)

    @tool
    def find_person(self, query: str) -> Row:
        """Find people of the company in its address book.

        Args:
            query: Words of a name, an address, a team, or "head" for the heads of teams.
        """
        rows = self.email.rows("SELECT name, address, team, role FROM contacts ORDER BY name")
        return shown([row for row in rows if matches(query, *row.values())])

    @tool
    def search_emails(
        self,
        query: str | None = None,
        sender: str | None = None,
        label: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Row:
        """Search the received emails, newest first. Without arguments, all of them.

        Args:
            query: Words of the subject or the text.
            sender: Words of the sender's name or address.
            label: A label that the email has.
            since: First day, YYYY-MM-DD.
            until: Last day, YYYY-MM-DD.
        """
        first = read_day(since).isoformat() if since else ""
        last = read_day(until).isoformat() if until else "9"
        labels = self._labels()
        rows = [
            {
                "email": row["id"],
                "from": f"{row['name']} <{row['sender']}>",
                "subject": row["subject"],
                "received": row["received"],
                "labels": labels.get(row["id"], []),
            }
            for row in self.email.rows("SELECT * FROM emails ORDER BY received DESC, id")
            if first <= row["received"][:10] <= last
            and matches(query or "", row["subject"], row["body"])
            and matches(sender or "", row["name"], row["sender"])
        ]
        return shown([row for row in rows if not label or label.strip() in row["labels"]])

    @tool
    def read_email(self, email: str) -> Row:
        """Read a received email.

        Args:
            email: Its number, such as M1234.
        """
        row = self._email(email)
        return row | {"labels": self._labels().get(row["id"], [])}

    @tool
    def search_sent(self, query: str | None = None) -> Row:
        """What was sent today, by words of its recipient, subject or text."""
        rows = self.email.rows("SELECT * FROM sent ORDER BY recipient, subject, body")
        return shown([row for row in rows if matches(query or "", row["recipient"], row["subject"], row["body"])])

    @tool(writes=True)
    def send_email(self, to: str, subject: str, body: str) -> str:
        """Send a new email to one address. It cannot be taken back.

        Args:
            to: The recipient's address.
        """
        return self._send("new", "", address(to), told(subject, "the subject"), told(body, "the body"))

    @tool(writes=True)
    def reply_email(self, email: str, body: str) -> str:
        """Reply to the sender of a received email. It cannot be taken back."""
        row = self._email(email)
        return self._send("reply", row["id"], row["sender"], f"Re: {row['subject']}", told(body, "the body"))

    @tool(writes=True)
    def forward_email(self, email: str, to: str) -> str:
        """Forward a received email as it is to one address. It cannot be taken back."""
        row = self._email(email)
        return self._send("forward", row["id"], address(to), f"Fwd: {row['subject']}", row["body"])

    @tool(writes=True)
    def delete_email(self, email: str) -> str:
        """Delete a received email for good."""
        row = self._email(email)
        self.email.run("DELETE FROM emails WHERE id = ?", row["id"])
        self.email.run("DELETE FROM labels WHERE email = ?", row["id"])
        return "deleted"

    @tool(writes=True)
    def label_email(self, email: str, label: str) -> str:
        """Put a label on a received email."""
        row = self._email(email)
        self.email.run("INSERT OR IGNORE INTO labels VALUES (?, ?)", row["id"], told(label, "the label"))
        return "labelled"

    @tool(writes=True)
    def unlabel_email(self, email: str, label: str) -> str:
        """Take a label off a received email."""
        row = self._email(email)
        if not self.email.run("DELETE FROM labels WHERE email = ? AND label = ?", row["id"], label.strip()):
            raise ToolError(f"{row['id']} has no label {label[:40]!r}")
        return "taken off"

    def known(self, person: str) -> str:
        """The address of somebody of the company."""
        found = address(person)
        if self.email.row("SELECT 1 FROM contacts WHERE address = ?", found) is None:
            raise ToolError(f"nobody in the company has the address {found!r}")
        return found

    def _email(self, number: str) -> Row:
        return one(self.email, "emails", "email", number)

    def _labels(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.email.rows("SELECT * FROM labels ORDER BY email, label"):
            found.setdefault(row["email"], []).append(row["label"])
        return found

    def _send(self, kind: str, about: str, to: str, subject: str, body: str) -> str:
        self.email.run("INSERT INTO sent VALUES (?, ?, ?, ?, ?)", kind, about, to, subject, body)
        return "sent"
