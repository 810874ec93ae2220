"""What can be looked up: people, assets, services, runbooks; and the checks that runbooks ask for.

Checks change nothing and may be made as often as one likes. What they find out is in no record.
"""

from __future__ import annotations

from typing import Any

from ..state import State
from ..tool import ToolError, tool
from .schema import SCHEMA, Method

Row = dict[str, Any]
MOST = 10
"""Rows that a search shows; it always tells how many there are."""
_PERSON = "id, name, email, department, site, manager, vip, status, account, password, mfa"
_ASSET = "tag, kind, model, owner, site, warranty, isolated"


class Records:
    """Tools that read."""

    db: Any = State.sqlite(SCHEMA)

    @tool
    def find_user(self, query: str) -> Row:
        """Find people by words of their name, email address or department."""
        rows = self.db.rows("SELECT id, name, email, department FROM people ORDER BY name, id")
        return shown([row for row in rows if matches(query, *row.values())])

    @tool
    def read_user(self, user: str) -> Row:
        """A person's record: manager, VIP or not, status, account, password, second factor.

        Args:
            user: The number, such as U1234.
        """
        return self.person(user)

    @tool
    def search_assets(self, query: str | None = None, owner: str | None = None) -> Row:
        """Search devices.

        Args:
            query: Words of the tag, kind, model or site.
            owner: The number of the person who has it.
        """
        rows = self.db.rows(f"SELECT {_ASSET} FROM assets ORDER BY tag")
        who = self.person(owner)["id"] if owner else None
        return shown(
            [
                row
                for row in rows
                if who in (None, row["owner"])
                and matches(query or "", row["tag"], row["kind"], row["model"], row["site"])
            ]
        )

    @tool
    def read_asset(self, asset: str) -> Row:
        """A device's record, with the last day of its warranty.

        Args:
            asset: The tag, such as LT1234.
        """
        return self.asset(asset)

    @tool
    def list_services(self) -> list[Row]:
        """Our services, and who owns them."""
        return self.db.rows("SELECT name, owner FROM services ORDER BY name")

    @tool
    def search_resources(self, query: str | None = None) -> Row:
        """Licences and shared folders by words of their names, and who owns them."""
        rows = self.db.rows("SELECT name, kind, owner FROM resources ORDER BY name")
        return shown([row for row in rows if matches(query or "", row["name"], row["kind"])])

    @tool
    def search_runbooks(self, query: str | None = None) -> Row:
        """Search the knowledge base by words of titles and texts. Without a query, all of it."""
        rows = self.db.rows("SELECT * FROM runbooks ORDER BY title, id")
        found = [row for row in rows if matches(query or "", row["title"], row["body"])]
        return {
            "found": len(found),
            "results": [{"runbook": r["id"], "title": r["title"], "status": r["status"]} for r in found],
        }

    @tool
    def read_runbook(self, runbook: str) -> Row:
        """Read a runbook.

        Args:
            runbook: The number, such as KB1234.
        """
        return self.one("runbooks", "id", "runbook", runbook)

    @tool
    def list_queues(self) -> list[str]:
        """The queues that tickets can be in."""
        return [row["name"] for row in self.db.rows("SELECT name FROM queues ORDER BY name")]

    # Checks.

    @tool
    def check_identity(self, ticket: str, method: Method) -> str:
        """Check whether a ticket's requester is who they say, in one of three ways."""
        row = self.one("tickets", "id", "ticket", ticket)
        return "confirmed" if row["genuine"] else "not confirmed"

    @tool
    def diagnose(self, asset: str) -> str:
        """Run the remote diagnosis of a device: what is wrong with it."""
        tag = self.asset(asset)["tag"]
        return self.db.row("SELECT state FROM assets WHERE tag = ?", tag)["state"]

    @tool
    def service_status(self, service: str) -> Row:
        """Probe a service: its state, its owner, and the last day of its latest change freeze, if it had any."""
        return self.one("services", "name", "service", service)

    # What the tools share.

    def one(self, table: str, key: str, what: str, value: str) -> Row:
        """The row with a key, in whatever case. Table and key are our own names."""
        row = self.db.row(f"SELECT * FROM {table} WHERE {key} = ? COLLATE NOCASE", value.strip())
        if row is None:
            raise ToolError(f"there is no {what} {value[:40]!r}")
        return row

    def person(self, number: str) -> Row:
        row = self.db.row(f"SELECT {_PERSON} FROM people WHERE id = ? COLLATE NOCASE", number.strip())
        if row is None:
            raise ToolError(f"there is no user {number[:40]!r}: find_user knows their numbers")
        return row

    def asset(self, tag: str) -> Row:
        row = self.db.row(f"SELECT {_ASSET} FROM assets WHERE tag = ? COLLATE NOCASE", tag.strip())
        if row is None:
            raise ToolError(f"there is no asset {tag[:40]!r}: search_assets knows their tags")
        return row


def shown(rows: list[Row]) -> Row:
    """A search's answer."""
    return {"found": len(rows), "results": rows[:MOST]}


def matches(query: str, *texts: object) -> bool:
    """Whether all words of a query occur, in whatever case and order."""
    text = " ".join(map(str, texts)).casefold()
    return all(word in text for word in query.casefold().split())
