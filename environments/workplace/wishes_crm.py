"""Wishes about customers."""

from __future__ import annotations

from . import words
from .people import BUYERS, FIRST, LAST, address_of, domain_of
from .references import call
from .wishes import Wish, Wishes


class CustomerWishes(Wishes):
    """New customers, who looks after them, how far they are, when to call."""

    def add_customer(self) -> Wish:
        taken = [customer.company for customer in self.world.customers]
        company = self.draws.one([firm for firm in BUYERS if firm not in taken])
        name = f"{self.draws.one(FIRST)} {self.draws.one(LAST)}"
        address, who = address_of(name, domain_of(company)), self.someone(me=True)
        status = self.draws.one(("lead", "lead", "qualified"))
        clause = self.say(
            f"add {name} of {company} ({address}) to the customers, status {status}, to be looked after by {who.words}",
            f"enter a new customer: {name}, {company}, {address}, status {status}, owner {who.words}",
        )
        given = {"name": name, "company": company, "email": address, "owner": who.it.address}
        given |= {} if status == "lead" else {"status": status}
        return self.wish("add_customer", clause, [call("add_customer", **given)], who)

    def set_customer_status(self) -> Wish | None:
        who = self.customer()
        if who is None:
            return None
        status = self.draws.one([status for status in words.CUSTOMER_STATUSES if status != who.it.status])
        clause = self.say(
            f"set the status of {who.words} to {status}",
            f"mark {who.words} as {status}",
            f'change the status of {who.words} to "{status}"',
        )
        writes = [call("set_customer_status", customer=who.it.id, status=status)]
        return self.wish("set_customer_status", clause, writes, who)

    def assign_customer(self) -> Wish | None:
        customer = self.customer()
        if customer is None:
            return None
        who = self.someone(customer.it.owner, me=True)
        clause = self.say(
            f"give {customer.words} to {who.words}",
            f"make {who.words} the owner of {customer.words}"
            if who.it is not self.user
            else f"give me {customer.words}",
            f"hand {customer.words} over to {who.words}",
        )
        return self.wish("assign_customer", clause, self.rules.give_customer(customer.it, who.it), customer, who)

    def set_follow_up(self) -> Wish | None:
        who, day = self.customer(), self.day(1, 14)
        if who is None or who.it.follow_up == day:
            return None
        clause = self.say(
            f"set the follow-up of {who.words} to {self.say_day(day)}",
            f"change the follow-up date of {who.words} to {self.say_day(day)}",
        )
        return self.wish("set_follow_up", clause, [call("set_follow_up", customer=who.it.id, day=day.isoformat())], who)

    def add_customer_note(self) -> Wish | None:
        who, text = self.customer(), self.draws.one(words.NOTES)
        if who is None:
            return None
        clause = self.say(
            f'add the note "{text}" to {who.words}',
            f'note on {who.words}: "{text}"',
            f'make a note on {who.words}: "{text}"',
        )
        return self.wish("add_customer_note", clause, [call("add_customer_note", customer=who.it.id, text=text)], who)

    def delete_customer(self) -> Wish | None:
        found = self.prefer(self.world.customers, lambda one: self.rules.has("won") and one.status == "won")
        who = self.customer(lambda one: one in found)
        if who is None:
            return None
        clause = self.say(f"delete {who.words} from the customers", f"remove {who.words} from our customers")
        return self.wish("delete_customer", clause, self.rules.delete_customer(who.it), who)

    # Several at once.

    def give_leads(self) -> Wish | None:
        owner = self.draws.one([p for p in self.cast.others if any(c.owner is p for c in self.world.customers)])
        leads = [one for one in self.world.customers if one.owner is owner and one.status == "lead"]
        if self.level == 1 or not 1 <= len(leads) <= 4:
            return None
        whose, who = self.named(owner), self.someone(owner, me=True)
        clause = self.say(
            f"give all leads of {whose.words} to {who.words}", f"hand every lead of {whose.words} over to {who.words}"
        )
        writes = [give for lead in leads for give in self.rules.give_customer(lead, who.it)]
        find = call("search_customers", owner=owner.address, status="lead")
        return self.wish("give_leads", clause, writes, whose, who, also=[find])

    def follow_up_all(self) -> Wish | None:
        """All customers of a status, or all who have heard nothing for some days."""
        if self.level == 1:
            return None
        day = self.day(1, 14)
        if self.draws.chance(0.5):
            status = self.draws.one(words.CUSTOMER_STATUSES[1:4])
            found = [one for one in self.world.customers if one.status == status]
            who, find = f"all customers with the status {status}", call("search_customers", status=status)
        else:
            days = self.draws.one((30, 35, 40, 45))
            found = [one for one in self.world.customers if one.last_contact < self.world.day(-days)]
            who = f"all customers whose last contact was more than {days} days ago"
            find = call("search_customers", last_contact_until=self.world.day(-days - 1).isoformat())
        if not 2 <= len(found) <= 5 or any(one.follow_up == day for one in found):
            return None
        clause = self.say(
            f"set the follow-up of {who} to {self.say_day(day)}", f"put the follow-up of {who} on {self.say_day(day)}"
        )
        writes = [call("set_follow_up", customer=one.id, day=day.isoformat()) for one in found]
        return self.wish("follow_up_all", clause, writes, also=[find])
