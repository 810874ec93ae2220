"""What the company's things are called, and what people write: the material that worlds and requests are made of."""

from __future__ import annotations

PROJECTS = (
    "Harbor",
    "Lantern",
    "Kestrel",
    "Juniper",
    "Cobalt",
    "Meadow",
    "Orchid",
    "Summit",
    "Delphi",
    "Falcon",
    "Willow",
)
MEETINGS = (
    "design review",
    "budget round",
    "kick-off",
    "retrospective",
    "planning",
    "demo",
    "status call",
    "risk workshop",
)
NEW_MEETINGS = (
    "Handover",
    "Pricing talk",
    "Roadmap hour",
    "Vendor call",
    "Interview",
    "Training",
    "Launch prep",
    "Audit prep",
)
JOBS = (
    *(
        "Draft the release notes",
        "Check the invoices",
        "Collect the feedback",
        "Update the cost sheet",
        "Fix the login page",
    ),
    *(
        "Prepare the slides",
        "Review the contract",
        "Order the test devices",
        "Write the user guide",
        "Clean up the backlog",
    ),
)
NEW_JOBS = (
    *(
        "Call the printer",
        "Compare three suppliers",
        "Renew the certificate",
        "Book the stand",
        "Translate the leaflet",
    ),
    *("Count the stock", "Test the backup", "Answer the survey", "Rename the price list", "Archive the old drafts"),
)
STATUSES = ("Backlog", "In progress", "In review", "Done")
PRIORITIES = ("low", "normal", "high")
COMMENTS = (
    *("Waiting for the supplier.", "The numbers are in the shared folder.", "Please start with the second part."),
    *("This has been agreed with Finance.", "The customer wants it in two languages.", "Half of it is finished."),
)
LABELS = ("urgent", "later", "invoices", "travel", "legal", "private")
NEW_LABELS = ("follow-up", "to print", "waiting", "for Monday", "read again", "checked")
TOPICS = (
    ("{project} budget", "Here are the figures for {project}. Could you have a look before the next round?"),
    ("{project} timeline", "The plan for {project} has moved by a week. Does that work for you?"),
    ("Question about {project}", "Who decides on the open points of {project}?"),
    ("{project} offer", "Attached is our offer for {project}. It holds until the end of the month."),
    ("{project} minutes", "These are the minutes of our talk about {project}. Please correct what is wrong."),
    ("Access to {project}", "I cannot open the folder of {project}. Can somebody let me in?"),
)
MESSAGES = (
    ("Room change", "We meet in the room on the third floor."),
    ("Short question", "Could you send me the latest numbers?"),
    ("Thank you", "Thank you for the quick help yesterday!"),
    ("Badge", "Your new badge is at the front desk."),
    ("Lunch", "Shall we have lunch together at noon?"),
    ("Slides", "The slides are ready and in the shared folder."),
    ("Deadline", "The deadline has moved to the end of the month."),
    ("Parking", "Please use the parking deck behind the building."),
    ("Keys", "I have left the keys with the porter."),
    ("Visitors", "Two visitors will arrive at ten."),
)
REPLIES = (
    *(
        "That works for me.",
        "I need two more days for this.",
        "Yes, please go ahead.",
        "Can we talk about it next week?",
    ),
    *("Sorry, I cannot make it.", "The second version is the right one.", "Please send me the details.", "Agreed!"),
)
NEWSLETTERS = (("Trade Letter", "news@tradeletter.example"), ("Metro Events", "tips@metroevents.example"))
ISSUES = ("Issue {n}: what is new", "Your digest, number {n}", "Last chance: offer {n}", "Week {n} at a glance")
CUSTOMER_STATUSES = ("lead", "qualified", "proposal", "won", "lost")
NOTES = (
    *(
        "Prefers to be called in the morning.",
        "Asks for a discount from 50 seats on.",
        "Has seen the demo and liked it.",
    ),
    *(
        "Decides together with the head of purchasing.",
        "Wants the contract in German.",
        "Moves to a new office in spring.",
    ),
)
SOURCES = ("search", "direct", "social", "newsletter")
METRICS = {"visits": "visits", "engaged": "engaged visits", "signups": "sign-ups"}
