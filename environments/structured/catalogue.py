"""Six domains of everyday work: an order, an employee, a shipment, an event, a book, a river gauge."""

from __future__ import annotations

from .domains import Domain, Record, Scalar, Table, Words, choice, flag

PEOPLE = ("Ines Falk", "Omar Said", "Yuki Mori", "Pavel Novak", "Amara Obi", "Lotte Brandt", "Diego Ruiz", "Priya Nair")
CITIES = ("Leipzig", "Porto", "Turin", "Ghent", "Malmo", "Lyon", "Krakow", "Basel")

ORDER = Domain(
    "order",
    ("An order came in by phone.", "We have a new order.", "Please record this order."),
    (
        Scalar("number", "A-####", ("The order number is {v}.", "It runs under {v}.")),
        Scalar("customer", PEOPLE, ("The customer is {v}.", "{v} is the one who ordered.")),
        Scalar("ordered_on", "date", ("It was placed on {v}.", "The date of the order is {v}."), "YYYY-MM-DD"),
        flag(
            "paid", ("It is paid.", "The money has arrived."), ("It is not paid yet.", "We still wait for the money.")
        ),
        choice(
            "status",
            {
                "open": ("Nobody has packed it yet.",),
                "shipped": ("The goods are on their way.", "It has left the warehouse."),
                "returned": ("The customer has sent everything back.",),
            },
        ),
        Scalar("voucher", "V####", ("The voucher {v} was used.",), optional=True, level=2),
    ),
    Record(
        "address",
        {
            "street": ("Mill Lane", "Harbour Road", "Elm Street"),
            "house": range(1, 190),
            "postcode": "0####",
            "city": CITIES,
        },
        "It goes to {street} {house}, {postcode} {city}.",
    ),
    Words("labels", ("fragile", "gift", "heavy", "cold", "upright"), "On the box it says {v}."),
    Table(
        "lines",
        "article",
        {
            "article": ("lamps", "mugs", "bowls", "trays", "candles", "rugs", "clocks"),
            "count": range(1, 13),
            "cents": range(95, 4999, 5),
        },
        "{count} {article} at {cents} cents each",
        "{count} {article} at {euros} euros each",
        lambda row: {"euros": f"{row['cents'] / 100:.2f}"},
        ("colour", ("red", "blue", "green", "grey"), " in {v}"),
        ("line_cents", "count times cents", lambda row: row["count"] * row["cents"]),
        (
            "total_cents",
            "count times cents, added up over all lines",
            lambda rows: sum(row["count"] * row["cents"] for row in rows),
        ),
        {"cents": "price of one, in euro cents"},
    ),
    (
        "The shop has been open since {n}.",
        "The last order of {person} had {n} things in it.",
        "The van to {city} is full.",
    ),
)

EMPLOYEE = Domain(
    "employee",
    ("Somebody new has joined us.", "Here is what we know of a colleague.", "A personnel file is to be written."),
    (
        Scalar("name", PEOPLE, ("The name is {v}.", "It is about {v}.")),
        Scalar("age", range(19, 66), ("The age is {v}.", "That is a person of {v} years.")),
        Scalar("badge", "0###", ("The badge bears the number {v}.", "Badge: {v}."), "four digits"),
        flag("remote", ("The work is done from home.",), ("The work is done in the office.",)),
        Scalar("since", "date", ("The first day was {v}.", "The contract began on {v}."), "YYYY-MM-DD"),
        choice(
            "contract",
            {
                "permanent": ("The contract has no end.",),
                "fixed_term": ("The contract ends in two years.",),
                "student": ("It is a job beside university.",),
            },
        ),
        Scalar("nickname", ("Ace", "Moss", "Pip", "Juno"), ("Everybody says {v}.",), optional=True, level=2),
    ),
    Record(
        "contact",
        {
            "email": ("desk@swan.example", "front@swan.example", "lab@swan.example"),
            "phone": "0### ######",
            "desk": range(1, 90),
        },
        "Write to {email}, call {phone}, or come to desk {desk}.",
    ),
    Words("languages", ("Dutch", "Arabic", "Polish", "Hindi", "French", "Greek"), "The languages spoken are {v}."),
    Table(
        "projects",
        "project",
        {
            "project": ("Harbour", "Lantern", "Orchard", "Compass", "Anvil", "Meadow"),
            "hours": range(4, 61, 4),
            "rate": range(40, 120),
        },
        "{hours} hours on {project} at {rate} euros an hour",
        "{days} days of 8 hours on {project} at {rate} euros an hour",
        lambda row: {"days": f"{row['hours'] / 8:g}"},
        ("travel", ("by train", "by car", "on foot"), ", reached {v}"),
        ("cost", "hours times rate", lambda row: row["hours"] * row["rate"]),
        ("total_hours", "the hours of all projects", lambda rows: sum(row["hours"] for row in rows)),
        {"rate": "euros an hour"},
    ),
    ("The office in {city} has {n} desks.", "{person} joined in the same month.", "The canteen closes at 2 pm."),
)

SHIPMENT = Domain(
    "shipment",
    ("A shipment is announced.", "This has to be shipped.", "The warehouse reports a shipment."),
    (
        Scalar("code", "@@-#####", ("Its code is {v}.", "It is tracked as {v}.")),
        Scalar("weight_t", range(5, 160), ("It weighs {v} tonnes.", "{v} tonnes are to be moved."), "tonnes", divide=4),
        Scalar("carrier", ("Nordfracht", "Alba Cargo", "Delta Freight"), ("{v} takes it.", "The carrier is {v}.")),
        flag("insured", ("It is insured.",), ("It has no insurance.", "Nobody has insured it.")),
        Scalar("leaves_on", "date", ("It leaves on {v}.", "The day of departure is {v}."), "YYYY-MM-DD"),
        choice(
            "priority",
            {
                "low": ("There is no hurry at all.",),
                "normal": ("It is as urgent as anything else.",),
                "high": ("It must go before all others.",),
            },
        ),
        Scalar("seal", "S######", ("The seal is {v}.",), optional=True, level=2),
    ),
    Record(
        "destination",
        {"city": CITIES, "dock": range(1, 30), "gate": "0#"},
        "It goes to {city}, dock {dock}, gate {gate}.",
    ),
    Words("hazards", ("acid", "battery", "gas", "glass", "ice"), "The warnings on it are {v}."),
    Table(
        "parcels",
        "label",
        {"label": tuple(f"P-{n}" for n in range(21, 60)), "grams": range(200, 9900, 50)},
        "{label} with {grams} grams",
        "{label} with {kilos} kilograms",
        lambda row: {"kilos": f"{row['grams'] / 1000:g}"},
        ("owner", PEOPLE, " for {v}"),
        ("heavy", "true above 5000 grams", lambda row: row["grams"] > 5000),
        ("total_grams", "the grams of all parcels", lambda rows: sum(row["grams"] for row in rows)),
    ),
    ("The gate in {city} is closed on Sundays.", "{person} drove the last one.", "The shed holds {n} pallets."),
)

EVENT = Domain(
    "event",
    ("We are planning an event.", "Here is the plan of an event.", "This is for the programme."),
    (
        Scalar(
            "title",
            ("Spring Meeting", "Open Lab", "River Day", "Autumn School"),
            ("It is called {v}.", "The title is {v}."),
        ),
        Scalar("date", "date", ("It takes place on {v}.", "The day is {v}."), "YYYY-MM-DD"),
        Scalar("guests", range(12, 400), ("{v} guests are expected.", "We count on {v} guests.")),
        Scalar("room", "2##", ("It is in room {v}.", "Room {v} is booked.")),
        flag("online", ("One can follow it online.",), ("There is no way to follow it online.",)),
        choice(
            "entry",
            {
                "free": ("Nobody has to pay.",),
                "ticket": ("One needs a ticket.",),
                "members": ("Only members are let in.",),
            },
        ),
        Scalar(
            "sponsor", ("Alba Cargo", "the town", "the museum"), ("It is paid for by {v}.",), optional=True, level=2
        ),
    ),
    Record(
        "venue",
        {"name": ("Old Mill", "Glass Hall", "North Pier"), "city": CITIES, "seats": range(80, 900)},
        "The venue is {name} in {city} with {seats} seats.",
    ),
    Words("topics", ("birds", "tides", "maps", "ferries", "bridges", "reeds"), "The topics are {v}."),
    Table(
        "talks",
        "speaker",
        {"speaker": PEOPLE, "minutes": range(10, 100, 5), "room": "1##"},
        "{speaker} for {minutes} minutes in room {room}",
        "{speaker} for {span} in room {room}",
        lambda row: {"span": f"{row['minutes'] // 60} h {row['minutes'] % 60} min"},
        ("language", ("French", "German", "Greek"), ", in {v}"),
        ("long", "true above 45 minutes", lambda row: row["minutes"] > 45),
        ("total_minutes", "the minutes of all talks", lambda rows: sum(row["minutes"] for row in rows)),
    ),
    ("Last year {n} people came.", "{person} does the music.", "The train from {city} takes an hour."),
)

BOOK = Domain(
    "book",
    ("A book for the catalogue.", "The library has a new title.", "This book is to be catalogued."),
    (
        Scalar(
            "title",
            ("Salt Roads", "The Ferryman", "A Field of Reeds", "Low Water"),
            ("The title is {v}.", "It is {v}."),
        ),
        Scalar("year", range(1890, 2026), ("It came out in {v}.", "It was printed in {v}.")),
        Scalar("pages", range(90, 900), ("It has {v} pages.", "There are {v} pages.")),
        Scalar("shelf", "0##.#", ("It stands at {v}.", "Its shelf mark is {v}.")),
        flag("lent", ("It is lent at present.",), ("It is on its shelf.",)),
        Scalar("rating", range(10, 50), ("Readers give it {v} of 5.", "Its rating is {v}."), divide=10),
        choice(
            "binding",
            {
                "hard": ("It has a hard cover.",),
                "soft": ("It is a paperback.",),
                "leather": ("It is bound in leather.",),
            },
        ),
        Scalar("series", ("Shorelines", "Small Atlas"), ("It is part of the series {v}.",), optional=True, level=2),
    ),
    Record(
        "publisher",
        {"name": ("Heron Press", "Quay Books", "Tern & Sons"), "city": CITIES, "founded": range(1820, 1990)},
        "{name} in {city}, founded in {founded}, published it.",
    ),
    Words("authors", PEOPLE, "It is by {v}."),
    Table(
        "copies",
        "branch",
        {"branch": ("Central", "Harbour", "Hillside", "Station", "Park"), "count": range(0, 9), "shelf": "@-##"},
        "{count} at {branch} on shelf {shelf}",
        "{count} at {branch} on shelf {shelf}",
        lambda row: {},
        ("donor", PEOPLE, ", given by {v}"),
        ("available", "true where count is above 0", lambda row: row["count"] > 0),
        ("total_count", "the copies of all branches", lambda rows: sum(row["count"] for row in rows)),
    ),
    ("The branch at the park opens at 10.", "{person} has read it twice.", "The library has {n} chairs."),
)

STATION = Domain(
    "station",
    ("A river gauge reports.", "The log of a gauge.", "Here is the report of a measuring station."),
    (
        Scalar("station", "G@-##", ("The station is {v}.", "It is gauge {v}.")),
        Scalar(
            "celsius",
            range(-50, 250),
            ("The water has {v} degrees.", "{v} degrees were measured."),
            "degrees",
            divide=10,
        ),
        Scalar(
            "battery",
            range(5, 100),
            ("The battery is at {v} percent.", "{v} percent of the battery are left."),
            "percent",
        ),
        flag("online", ("It is connected.",), ("The connection is lost.",)),
        Scalar("serviced_on", "date", ("It was last serviced on {v}.", "The last service was on {v}."), "YYYY-MM-DD"),
        choice(
            "state",
            {
                "ok": ("Nothing is wrong with it.",),
                "noisy": ("Its figures jump about.",),
                "broken": ("It has to be replaced.",),
            },
        ),
        Scalar("keeper", PEOPLE, ("{v} looks after it.",), optional=True, level=2),
    ),
    Record(
        "position",
        {"river": ("Elbe", "Po", "Loire", "Oder"), "kilometre": range(10, 900), "bank": ("left", "right")},
        "It stands on the {bank} bank of the {river} at kilometre {kilometre}.",
    ),
    Words("sensors", ("level", "flow", "oxygen", "light", "wind"), "It has sensors for {v}."),
    Table(
        "readings",
        "hour",
        {"hour": range(0, 24), "level_cm": range(80, 900)},
        "{level_cm} cm at {hour} h",
        "{metres} m at {hour} h",
        lambda row: {"metres": f"{row['level_cm'] / 100:.2f}"},
        ("by", PEOPLE, ", read by {v}"),
        ("alarm", "true above 600 cm", lambda row: row["level_cm"] > 600),
        ("highest_cm", "the highest level", lambda rows: max(row["level_cm"] for row in rows)),
    ),
    ("The flood of {n} is marked on the wall.", "{person} painted the hut.", "The next gauge is in {city}."),
)

DOMAINS = (ORDER, EMPLOYEE, SHIPMENT, EVENT, BOOK, STATION)
