"""The projects database: boards, and the tasks on them.

The id of a new task follows from its title, as with events.
"""

from __future__ import annotations

from typing import Any, Literal

from ..state import State
from ..tool import ToolError, tool
from .dates import read_day
from .lookup import Row, address, matches, new_id, one, shown, told
from .mail import Mail

SCHEMA = """
CREATE TABLE boards (name TEXT);
CREATE TABLE tasks (id TEXT, title TEXT, board TEXT, status TEXT, assignee TEXT, due TEXT, priority TEXT);
CREATE TABLE comments (task TEXT, text TEXT);
"""
Status = Literal["Backlog", "In progress", "In review", "Done"]
Priority = Literal["low", "normal", "high"]


class Boards(Mail):
    """Tools of the project boards. Only people of the address book are given tasks."""

    projects: Any = State.sqlite(SCHEMA)

    @tool
    def search_tasks(
        self,
        query: str | None = None,
        board: str | None = None,
        status: Status | None = None,
        assignee: str | None = None,
        due_since: str | None = None,
        due_until: str | None = None,
    ) -> Row:
        """Search tasks, in order of their due dates. Without arguments, all of them.

        Args:
            query: Words of the title.
            board: The name of a board.
            assignee: An address.
            due_since: First due date, YYYY-MM-DD.
            due_until: Last due date, YYYY-MM-DD.
        """
        first = read_day(due_since).isoformat() if due_since else ""
        last = read_day(due_until).isoformat() if due_until else "~"
        who, where = address(assignee) if assignee else None, self._board(board) if board else None
        return shown(
            [
                _shown(row)
                for row in self.projects.rows("SELECT * FROM tasks ORDER BY due, id")
                if first <= (row["due"] or "~") <= last
                and matches(query or "", row["title"])
                and where in (None, row["board"])
                and status in (None, row["status"])
                and who in (None, row["assignee"])
            ]
        )

    @tool
    def read_task(self, task: str) -> Row:
        """Look a task up, with its comments.

        Args:
            task: Its number, such as T1234.
        """
        row = self._task(task)
        comments = self.projects.rows("SELECT text FROM comments WHERE task = ? ORDER BY text", row["id"])
        return _shown(row) | {"comments": [comment["text"] for comment in comments]}

    @tool
    def list_boards(self) -> list[str]:
        """The names of the boards."""
        return [row["name"] for row in self.projects.rows("SELECT name FROM boards ORDER BY name")]

    @tool(writes=True)
    def create_task(
        self, title: str, board: str, assignee: str, due: str | None = None, priority: Priority = "normal"
    ) -> Row:
        """Put a new task into the backlog of a board.

        Args:
            assignee: The address of somebody of the company.
            due: YYYY-MM-DD, or left out.
        """
        title, where, who = told(title, "the title"), self._board(board), self.known(assignee)
        day = read_day(due).isoformat() if due else None
        number = new_id(self.projects, "tasks", "T", title)
        row = (number, title, where, "Backlog", who, day, priority)
        self.projects.run("INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
        return {"task": number}

    @tool(writes=True)
    def assign_task(self, task: str, assignee: str) -> str:
        """Give a task to somebody.

        Args:
            assignee: The address of somebody of the company.
        """
        return self._change_task(task, "assignee", self.known(assignee))

    @tool(writes=True)
    def move_task(self, task: str, status: Status) -> str:
        """Move a task to another status on its board."""
        return self._change_task(task, "status", status)

    @tool(writes=True)
    def set_due_date(self, task: str, due: str) -> str:
        """Set when a task is due.

        Args:
            due: YYYY-MM-DD.
        """
        return self._change_task(task, "due", read_day(due).isoformat())

    @tool(writes=True)
    def set_task_priority(self, task: str, priority: Priority) -> str:
        """Set a task's priority."""
        return self._change_task(task, "priority", priority)

    @tool(writes=True)
    def comment_on_task(self, task: str, text: str) -> str:
        """Add a comment to a task."""
        self.projects.run("INSERT INTO comments VALUES (?, ?)", self._task(task)["id"], told(text, "the comment"))
        return "added"

    @tool(writes=True)
    def delete_task(self, task: str) -> str:
        """Delete a task and its comments for good."""
        number = self._task(task)["id"]
        self.projects.run("DELETE FROM tasks WHERE id = ?", number)
        self.projects.run("DELETE FROM comments WHERE task = ?", number)
        return "deleted"

    def _task(self, number: str) -> Row:
        return one(self.projects, "tasks", "task", number)

    def _board(self, name: str) -> str:
        names = self.list_boards()
        for found in names:
            if found.casefold() == name.strip().casefold():
                return found
        raise ToolError(f"there is no board {name[:40]!r}; the boards are {', '.join(names)}")

    def _change_task(self, task: str, column: str, value: str) -> str:
        # The column is one of our own names.
        self.projects.run(f"UPDATE tasks SET {column} = ? WHERE id = ?", value, self._task(task)["id"])
        return "changed"


def _shown(row: Row) -> Row:
    return {("task" if key == "id" else key): value for key, value in row.items()}
