"""Wishes about the traffic of the web site."""

from __future__ import annotations

from . import words
from .references import call
from .wishes import Wish
from .wishes_mail import MailWishes


class TrafficWishes(MailWishes):
    """Plots, reports and alerts. The sums are those that mail may also speak of."""

    def create_plot(self) -> Wish:
        metric, kind = self.draws.one(tuple(words.METRICS)), self.draws.one(("line", "bar"))
        span, since, until = self._span()
        clause = self.say(
            f"plot {words.METRICS[metric]} {span} as a {kind} plot",
            f"make a {kind} plot of {words.METRICS[metric]} {span}",
            f"draw {words.METRICS[metric]} {span} as a {kind} plot",
        )
        return self.wish(
            "create_plot", clause, [call("create_plot", metric=metric, since=since, until=until, kind=kind)]
        )

    def create_report(self) -> Wish:
        metric, who = self.draws.one(tuple(words.METRICS)), self.someone(me=True)
        span, since, until = self._span()
        clause = self.say(
            f"make a report on {words.METRICS[metric]} {span} for {who.words}",
            f"deliver a report on {words.METRICS[metric]} {span} to {who.words}",
        )
        made = call("create_report", metric=metric, since=since, until=until, recipient=who.it.address)
        return self.wish("create_report", clause, [made], who)

    def set_alert(self) -> Wish | None:
        metric, below = self.draws.one(tuple(words.METRICS)), 5 * self.draws.between(2, 30)
        span, days = "", 7
        source, find = self.draws.one(words.SOURCES), []
        name = f"from {source}"
        if self.level > 1 and self.draws.chance(0.6):
            totals = [sum(self.figures(metric, one, days)) for one in words.SOURCES]
            best = self.draws.chance(0.5)
            wanted = max(totals) if best else min(totals)
            if totals.count(wanted) > 1:
                return None
            source = words.SOURCES[totals.index(wanted)]
            span = f"in the last {days} days"
            name = f"from the source that brought the {'most' if best else 'fewest'} of them {span}"
            since, until = self.last_days(days)
            find = [call("traffic_by_source", metric=metric, since=since, until=until)]
        if [source, metric, below] in self.world.alerts:
            return None
        told = words.METRICS[metric]
        clause = self.say(
            f"warn me when the {told} of a day {name} fall below {below}",
            f"set an alert for when the daily {told} {name} go below {below}",
        )
        return self.wish("set_alert", clause, [call("set_alert", source=source, metric=metric, below=below)], also=find)

    def remove_alert(self) -> Wish:
        source, metric, _ = self.draws.one(self.world.alerts)
        told = words.METRICS[metric]
        clause = self.say(f"take the alert on {told} from {source} off", f"remove the alert on {told} from {source}")
        return self.wish("remove_alert", clause, [call("remove_alert", source=source, metric=metric)])

    # What needs a look at the figures, or several at once.

    def plot_from_peak(self) -> Wish | None:
        """From the best or worst of the last days on."""
        metric, kind, days = (
            self.draws.one(tuple(words.METRICS)),
            self.draws.one(("line", "bar")),
            self.draws.one((7, 10, 14)),
        )
        values, most = self.figures(metric, None, days), self.draws.chance(0.6)
        peak = max(values) if most else min(values)
        if self.level == 1 or values.count(peak) > 1:
            return None
        since = self.world.day(values.index(peak) - days).isoformat()
        first, until = self.last_days(days)
        told, which = words.METRICS[metric], "most" if most else "fewest"
        clause = self.say(
            f"make a {kind} plot of {told} that begins with the day that had the {which} of them in the last {days} days and ends "
            "yesterday",
            f"find the day with the {which} {told} in the last {days} days and plot {told} from that day to yesterday as a "
            f"{kind} plot",
        )
        find = call("traffic_by_day", metric=metric, since=first, until=until)
        made = call("create_plot", metric=metric, since=since, until=until, kind=kind)
        return self.wish("plot_from_peak", clause, [made], also=[find])

    def report_to_team(self) -> Wish | None:
        """The same report for each of a team but the user."""
        if self.level == 1:
            return None
        metric, team = self.draws.one(tuple(words.METRICS)), self.draws.one(self.cast.others).team
        span, since, until = self._span()
        people = [person for person in self.cast.people if person.team == team]
        clause = self.say(
            f"make a report on {words.METRICS[metric]} {span} for each person in {team}",
            f"deliver a report on {words.METRICS[metric]} {span} to everybody in {team}",
        )
        clause += ", me included" if self.user in people else ""
        given = {"metric": metric, "since": since, "until": until}
        made = [call("create_report", **given, recipient=person.address) for person in people]
        return self.wish("report_to_team", clause, made, also=[call("find_person", query=team)])

    def change_alert(self) -> Wish | None:
        """An alert that there is, by so much up or down."""
        if self.level == 1:
            return None
        source, metric, below = self.draws.one(self.world.alerts)
        by = 5 * self.draws.between(1, 9)
        up = self.draws.chance(0.5) or by > below
        told = words.METRICS[metric]
        clause = self.say(
            f"{'raise' if up else 'lower'} the number in the alert on {told} from {source} by {by}",
            f"let the alert on {told} from {source} go off at a number that is {by} {'higher' if up else 'lower'} than now",
        )
        made = call("set_alert", source=source, metric=metric, below=below + by if up else below - by)
        return self.wish("change_alert", clause, [made], also=[call("list_analytics")])

    def remove_alerts(self) -> Wish | None:
        if self.level == 1:
            return None
        clause = self.say("take all alerts off", "remove every alert that there is")
        made = [call("remove_alert", source=source, metric=metric) for source, metric, _ in self.world.alerts]
        return self.wish("remove_alerts", clause, made, also=[call("list_analytics")])

    def _span(self) -> tuple[str, str, str]:
        """Some days of the past, in words and as first and last day."""
        if self.level > 1:
            days = self.draws.between(2, 14)
            return (f"for the last {days} days", *self.last_days(days))
        ago = self.draws.between(5, 14)
        since, until = self.world.day(-ago), self.world.day(-self.draws.between(1, ago - 1))
        first, last = self.say_day(since), self.say_day(until)
        told = self.say(f"from {first} to {last}", f"from {first} up to and including {last}")
        return told, since.isoformat(), until.isoformat()
