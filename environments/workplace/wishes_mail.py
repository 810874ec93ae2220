"""Wishes about mail."""

from __future__ import annotations

from . import words
from .people import Person
from .references import call
from .wishes import Wish, Wishes
from .world import Email

_NEWSLETTERS = tuple(address for _, address in words.NEWSLETTERS)


class MailWishes(Wishes):
    """New mail, replies, forwarding, labels, deletion."""

    def send(self) -> Wish:
        who = self.someone()
        subject, body = self.draws.one(words.MESSAGES)
        return self.wish(
            "send", self._letter(who.words, subject, body), self.rules.send(who.it.address, subject, body), who
        )

    def send_to_customer(self) -> Wish | None:
        who = self.customer()
        if who is None:
            return None
        address = who.it.email
        subject, body = self.draws.one(words.MESSAGES)
        name = address if self.level == 1 else who.words
        return self.wish(
            "send_to_customer", self._letter(name, subject, body), self.rules.send(address, subject, body), who
        )

    def send_figure(self) -> Wish | None:
        if self.level == 1:
            return None
        who, metric, days = self.someone(), self.draws.one(tuple(words.METRICS)), self.draws.one((3, 5, 7, 10))
        source = self.draws.one(words.SOURCES)
        since, until = self.last_days(days)
        value = sum(self.figures(metric, source, days))
        subject = self.say("Web traffic", f"Traffic from {source}", "Numbers for you")
        text = self.say(f"{words.METRICS[metric].capitalize()}: ", f"{source.capitalize()}, last {days} days: ")
        clause = self.say(
            f'email {who.words} with the subject "{subject}" and the text "{text}N", where N is the number of '
            f"{words.METRICS[metric]} from {source} in the last {days} days",
            f'send {who.words} an email with the subject "{subject}"; the text is "{text}N", with the number of '
            f"{words.METRICS[metric]} from {source} in the last {days} days in place of N",
        )
        total = call("traffic_total", metric=metric, since=since, until=until, source=source)
        mail = self.rules.send(who.it.address, subject, f"{text}{value}")
        return self.wish("send_figure", clause, mail, who, also=[total])

    def send_to_guests(self) -> Wish | None:
        """One mail to each of the others who take part in an event."""
        event = self.event()
        if event is None or self.level == 1:
            return None
        subject, body = self.draws.one(words.MESSAGES)
        others = [guest for guest in event.it.guests if guest is not self.user]
        who = self.say(
            f"each of the other participants of {event.words}", f"everybody else who takes part in {event.words}"
        )
        writes = [mail for guest in others for mail in self.rules.send(guest.address, subject, body)]
        return self.wish("send_to_guests", self._letter(who, subject, body), writes, event)

    def reply(self) -> Wish | None:
        email = self.email(lambda email: "@" in email.sender and email.sender not in _NEWSLETTERS)
        if email is None:
            return None
        text = self.draws.one(words.REPLIES)
        clause = self.say(
            f'reply to {email.words} with "{text}"',
            f'answer {email.words} with the words "{text}"',
            f'write a reply to {email.words} that says "{text}"',
        )
        return self.wish("reply", clause, [call("reply_email", email=email.it.id, body=text)], email)

    def forward(self) -> Wish | None:
        email = self.email()
        if email is None:
            return None
        who = self.someone(*self._author(email.it))
        clause = self.say(
            f"forward {email.words} to {who.words}",
            f"pass {email.words} on to {who.words}",
            f"let {who.words} have {email.words} by forwarding it",
        )
        return self.wish("forward", clause, [call("forward_email", email=email.it.id, to=who.it.address)], email, who)

    def delete_email(self) -> Wish | None:
        emails = self.prefer(self.world.emails, self.rules.kept)
        email = self.email(lambda email: email in emails)
        if email is None:
            return None
        clause = self.say(f"delete {email.words}", f"throw {email.words} away", f"remove {email.words} from my mailbox")
        return self.wish("delete_email", clause, self.rules.delete_email(email.it), email)

    def delete_from(self) -> Wish | None:
        """All mail of one sender."""
        if self.level == 1:
            return None
        emails = self.prefer(self.world.emails, self.rules.kept)
        sender = self.draws.one(emails)
        theirs = [email for email in self.world.emails if email.sender == sender.sender]
        if not 2 <= len(theirs) <= 4:
            return None
        name = self.sender(sender)
        clause = self.say(f"delete all emails from {name}", f"clear my mailbox of everything that came from {name}")
        writes = [delete for email in theirs for delete in self.rules.delete_email(email)]
        return self.wish("delete_from", clause, writes, also=[call("search_emails", sender=sender.sender)])

    def label_email(self) -> Wish | None:
        label = self.draws.one(words.NEW_LABELS)
        email = self.email()
        if email is None:
            return None
        clause = self.say(
            f'put the label "{label}" on {email.words}',
            f'label {email.words} as "{label}"',
            f'give {email.words} the label "{label}"',
        )
        return self.wish("label_email", clause, [call("label_email", email=email.it.id, label=label)], email)

    def label_from(self) -> Wish | None:
        if self.level == 1:
            return None
        sender, label = self.draws.one(self.world.emails), self.draws.one(words.NEW_LABELS)
        theirs = [email for email in self.world.emails if email.sender == sender.sender]
        if not 2 <= len(theirs) <= 4:
            return None
        name = self.sender(sender)
        clause = self.say(
            f'put the label "{label}" on every email from {name}', f'label all emails from {name} as "{label}"'
        )
        writes = [call("label_email", email=email.id, label=label) for email in theirs]
        return self.wish("label_from", clause, writes, also=[call("search_emails", sender=sender.sender)])

    def figures(self, metric: str, source: str | None, days: int) -> list[int]:
        """A metric of the last days, day by day."""
        column = tuple(words.METRICS).index(metric)
        return [
            sum(
                self.world.traffic[self.world.day(-away), one][column] for one in words.SOURCES if source in (None, one)
            )
            for away in range(days, 0, -1)
        ]

    def _author(self, email: Email) -> list[Person]:
        person = self.cast.by_address.get(email.sender)
        return [] if person is None else [person]

    def _letter(self, who: str, subject: str, body: str) -> str:
        return self.say(
            f'send {who} an email with the subject "{subject}" and the text "{body}"',
            f'email {who}, with "{subject}" as the subject and "{body}" as the text',
            f'write to {who}; the text is "{body}" and the subject "{subject}"',
        )
