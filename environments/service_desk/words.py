"""What people write beside the fault itself: security incidents told by those who see none, how many are concerned, how urgent."""

from __future__ import annotations

INCIDENTS = (
    (
        "Strange mail",
        "I opened the attachment of a mail about a parcel, and a black window came and went. I had not ordered anything. "
        "My {model} works as always.",
    ),
    ("Prize", "A page said that I had won something, so I entered my password there on my {model}. Was that right?"),
    ("Slow mouse", "The mouse of my {model} moves by itself now and then, and yesterday it opened my mailbox."),
    ("Left on the train", "My {model} stayed on the train last night. The lost property office does not have it."),
    ("Pop-ups", "Since I installed a free converter, my {model} shows pages that I have not opened."),
)
"""Security incidents as those tell of them who do not know that they are. Each concerns a device."""
SIGN_INS = (
    ("Sign-in from abroad", "I got a message that I signed in from another continent at night. I was asleep at home."),
    (
        "Mails that I did not write",
        "Customers ask me about mails that I have never written, though they came from my mailbox.",
    ),
)
"""Security incidents without a device."""

OPENERS = ("", "", "Hello.", "Dear service desk!", "Hi all.", "Good morning.", "Hello there!")
CLOSINGS = ("", "", "Thanks in advance!", "Thank you.", "I am at my desk until four.", "Best reached by mail.")
IMPACTS = {
    "low": ("It is only me, as far as I know.", "My colleagues do not have this.", "Nobody else has told of it."),
    "medium": (
        "Three of us have the same.",
        "Two colleagues beside me have it too.",
        "Four people in my room are stuck with it.",
    ),
    "high": (
        "The whole department {department} has it.",
        "All of {site} is affected.",
        "Everybody in {department} has this.",
    ),
}
URGENCIES = {
    "high": ("I cannot work at all.", "Work has stopped.", "There is no way round it, so nothing goes on."),
    "medium": (
        "For the moment I can get by with a way round.",
        "There is a way round, but it costs time.",
        "We manage somehow, with a detour.",
    ),
    "low": ("There is no hurry.", "It can wait for a few days.", "Whenever you find the time."),
}
