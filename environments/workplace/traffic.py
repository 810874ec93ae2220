"""The analytics database: visits to the company's web site by day and source, and what is made of them.

Plots, reports and alerts are rows without ids: the same plot made twice is two plots, and one too many.
"""

from __future__ import annotations

from typing import Any, Literal

from ..state import State
from ..tool import ToolError, tool
from .dates import read_day
from .lookup import Row
from .mail import Mail

SCHEMA = """
CREATE TABLE traffic (day TEXT, source TEXT, visits INTEGER, engaged INTEGER, signups INTEGER);
CREATE TABLE plots (metric TEXT, since TEXT, until TEXT, kind TEXT);
CREATE TABLE reports (metric TEXT, since TEXT, until TEXT, recipient TEXT);
CREATE TABLE alerts (source TEXT, metric TEXT, below INTEGER, PRIMARY KEY (source, metric));
"""
Metric = Literal["visits", "engaged", "signups"]
Source = Literal["search", "direct", "social", "newsletter"]
HIGHEST = 1_000_000


class Traffic(Mail):
    """Tools of the web analytics. Reports go to people of the address book."""

    analytics: Any = State.sqlite(SCHEMA)

    @tool
    def traffic_total(self, metric: Metric, since: str, until: str, source: Source | None = None) -> int:
        """The sum of a metric over some days.

        Args:
            metric: Visits, engaged visits, or sign-ups.
            since: First day, YYYY-MM-DD.
            until: Last day, YYYY-MM-DD.
            source: Where the visitors came from; all sources if left out.
        """
        return sum(row[metric] for row in self._traffic(since, until, source))

    @tool
    def traffic_by_day(self, metric: Metric, since: str, until: str, source: Source | None = None) -> dict[str, int]:
        """A metric for each of some days, both ends included."""
        found: dict[str, int] = {}
        for row in self._traffic(since, until, source):
            found[row["day"]] = found.get(row["day"], 0) + row[metric]
        return found

    @tool
    def traffic_by_source(self, metric: Metric, since: str, until: str) -> dict[str, int]:
        """A metric for each source, over some days, both ends included."""
        found: dict[str, int] = {}
        for row in self._traffic(since, until, None):
            found[row["source"]] = found.get(row["source"], 0) + row[metric]
        return found

    @tool
    def list_analytics(self) -> dict[str, list[Row]]:
        """The plots, reports and alerts that there are."""
        return {
            "plots": self.analytics.rows("SELECT * FROM plots ORDER BY metric, since, until, kind"),
            "reports": self.analytics.rows("SELECT * FROM reports ORDER BY metric, since, until, recipient"),
            "alerts": self.analytics.rows("SELECT * FROM alerts ORDER BY source, metric"),
        }

    @tool(writes=True)
    def create_plot(self, metric: Metric, since: str, until: str, kind: Literal["line", "bar"]) -> str:
        """Plot a metric over some days, both ends included."""
        self.analytics.run("INSERT INTO plots VALUES (?, ?, ?, ?)", metric, *_span(since, until), kind)
        return "plotted"

    @tool(writes=True)
    def create_report(self, metric: Metric, since: str, until: str, recipient: str) -> str:
        """Make a report on a metric over some days, both ends included, and deliver it.

        Args:
            recipient: The address of somebody of the company.
        """
        span = _span(since, until)
        self.analytics.run("INSERT INTO reports VALUES (?, ?, ?, ?)", metric, *span, self.known(recipient))
        return "delivered"

    @tool(writes=True)
    def set_alert(self, source: Source, metric: Metric, below: int) -> str:
        """Warn the user when the daily value of a source falls below a number. Replaces an alert on the same."""
        if not 0 <= below <= HIGHEST:
            raise ToolError(f"below is from 0 to {HIGHEST}, got {below}"[:80])
        self.analytics.run("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?)", source, metric, below)
        return "set"

    @tool(writes=True)
    def remove_alert(self, source: Source, metric: Metric) -> str:
        """Take an alert off."""
        if not self.analytics.run("DELETE FROM alerts WHERE source = ? AND metric = ?", source, metric):
            raise ToolError(f"there is no alert on {metric} from {source}")
        return "removed"

    def _traffic(self, since: str, until: str, source: str | None) -> list[Row]:
        rows = self.analytics.rows(
            "SELECT * FROM traffic WHERE day BETWEEN ? AND ? ORDER BY day, source", *_span(since, until)
        )
        return [row for row in rows if source in (None, row["source"])]


def _span(since: str, until: str) -> tuple[str, str]:
    first, last = read_day(since), read_day(until)
    if first > last:
        raise ToolError(f"{first.isoformat()} is after {last.isoformat()}")
    return first.isoformat(), last.isoformat()
