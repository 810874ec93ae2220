"""Wishes about projects and their tasks."""

from __future__ import annotations

from . import words
from .references import call
from .wishes import Wish, Wishes
from .world import Job


class BoardWishes(Wishes):
    """New tasks, who does them, how far they are, until when."""

    def create_task(self) -> Wish:
        title, board = self.draws.one(words.NEW_JOBS), self.draws.one(self.world.projects)
        who = self.someone(me=True)
        if self.biting and self.rules.has("load"):
            busy = [person for person in self.cast.others if self.rules.busy(person)]
            who = self.pointed(self.draws.one(busy)) if busy else who
        high = self.draws.chance(0.7 if self.biting and self.rules.has("rush") else 0.25)
        due = self.day(1, 14) if self.draws.chance(0.5) else None
        priority = "high" if high else "normal"
        extras = [f"due {self.on_day(due)}"] if due is not None else []
        extras += [self.say("of high priority", "with high priority")] if high else []
        tail = f", {' and '.join(extras)}" if extras else ""
        clause = self.say(
            f'create a task "{title}" on the board "{board}" for {who.words}{tail}',
            f'put a new task "{title}" on the board "{board}", assigned to {who.words}{tail}',
            f'add "{title}" to the board "{board}" as a task for {who.words}{tail}',
        )
        return self.wish("create_task", clause, self.rules.create_task(title, board, who.it, due, priority), who)

    def assign_task(self) -> Wish | None:
        job = self.job()
        if job is None:
            return None
        if not job.it.open and self.rules.has("load"):
            return None  # whether a finished task counts would be a matter of taste
        who = self.someone(job.it.assignee, me=True)
        if self.biting and self.rules.has("load"):
            busy = [p for p in self.cast.others if self.rules.busy(p) and p is not job.it.assignee]
            who = self.pointed(self.draws.one(busy)) if busy else who
        taker = self.rules.taker(who.it)
        if taker is job.it.assignee:
            return None
        clause = self.say(
            f"assign {job.words} to {who.words}",
            f"give {job.words} to {who.words}",
            f"hand {job.words} over to {who.words}",
        )
        return self.wish("assign_task", clause, [call("assign_task", task=job.it.id, assignee=taker.address)], job, who)

    def move_task(self) -> Wish | None:
        job = self.job()
        if job is None:
            return None
        status = self.draws.one([status for status in words.STATUSES if status != job.it.status])
        clause = self.say(
            f'move {job.words} to "{status}"',
            f'set the status of {job.words} to "{status}"',
            f'put {job.words} into "{status}"',
        )
        return self.wish("move_task", clause, [call("move_task", task=job.it.id, status=status)], job)

    def set_due_date(self) -> Wish | None:
        job, day = self.job(), self.day(1, 14)
        if job is None or job.it.due == day:
            return None
        clause = self.say(
            f"set the due date of {job.words} to {self.say_day(day)}",
            f"make {job.words} due {self.on_day(day)}",
            f"change when {job.words} is due: {self.say_day(day)}",
        )
        return self.wish("set_due_date", clause, [call("set_due_date", task=job.it.id, due=day.isoformat())], job)

    def set_task_priority(self) -> Wish | None:
        job = self.job()
        if job is None:
            return None
        priority = self.draws.one([priority for priority in words.PRIORITIES if priority != job.it.priority])
        clause = self.say(f"set the priority of {job.words} to {priority}", f"give {job.words} {priority} priority")
        writes = [call("set_task_priority", task=job.it.id, priority=priority)]
        return self.wish("set_task_priority", clause, writes, job)

    def comment_on_task(self) -> Wish | None:
        job, text = self.job(), self.draws.one(words.COMMENTS)
        if job is None:
            return None
        clause = self.say(
            f'comment on {job.words}: "{text}"',
            f'add the comment "{text}" to {job.words}',
            f'note on {job.words}: "{text}"',
        )
        return self.wish("comment_on_task", clause, [call("comment_on_task", task=job.it.id, text=text)], job)

    def delete_task(self) -> Wish | None:
        job = self.job()
        if job is None:
            return None
        clause = self.say(f"delete {job.words}", f"remove {job.words} for good")
        return self.wish("delete_task", clause, [call("delete_task", task=job.it.id)], job)

    # Several at once.

    def assign_all(self) -> Wish | None:
        """All open tasks of one person to another."""
        if self.level == 1 or self.rules.has("load"):
            return None  # with every task that is given the load changes
        worker = self.draws.one([person for person in self.cast.others if not self.rules.approves(person)])
        jobs = self._open(lambda job: job.assignee is worker)
        if not 2 <= len(jobs) <= 5:
            return None
        whose, who = self.named(worker), self.someone(worker, me=True)
        clause = self.say(
            f"assign all open tasks of {whose.words} to {who.words}",
            f"give every open task of {whose.words} to {who.words}",
        )
        writes = [call("assign_task", task=job.id, assignee=who.it.address) for job in jobs]
        find = call("search_tasks", assignee=worker.address)
        return self.wish("assign_all", clause, writes, whose, who, also=[find])

    def finish_review(self) -> Wish | None:
        board = self.draws.one(self.world.projects)
        jobs = [job for job in self.world.jobs if job.board == board and job.status == "In review"]
        if self.level == 1 or not 1 <= len(jobs) <= 4:
            return None
        clause = self.say(
            f'move everything that is in review on the board "{board}" to "Done"',
            f'set all tasks in review on the board "{board}" to "Done"',
        )
        writes = [call("move_task", task=job.id, status="Done") for job in jobs]
        return self.wish("finish_review", clause, writes, also=[call("search_tasks", board=board, status="In review")])

    def postpone_overdue(self) -> Wish | None:
        board, day = self.draws.one(self.world.projects), self.day(1, 10)
        jobs = self._open(lambda job: job.board == board and job.due < self.world.today)
        if self.level == 1 or not 1 <= len(jobs) <= 4:
            return None
        clause = self.say(
            f'set the due date of all overdue tasks on the board "{board}" to {self.say_day(day)}',
            f'make everything that is overdue on the board "{board}" due {self.on_day(day)}',
        )
        writes = [call("set_due_date", task=job.id, due=day.isoformat()) for job in jobs]
        until = self.world.day(-1).isoformat()
        return self.wish("postpone_overdue", clause, writes, also=[call("search_tasks", board=board, due_until=until)])

    def _open(self, fits: object) -> list[Job]:
        return [job for job in self.world.jobs if job.open and fits(job)]  # type: ignore[operator]
