"""Faults: what goes wrong, how people put it, what a check finds, and which action mends it.

A fault's category, check and action never change; the codes, methods and queues of its runbook are drawn for each episode.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    key: str
    category: str
    on: str
    """What it is a fault of: account, laptop, printer, service, or a licence or folder that is wished for."""
    title: str
    """Of the runbook."""
    retired: str
    """Title of an older runbook for the same."""
    symptoms: str
    """As the runbook describes them."""
    action: str
    finding: str
    """What the check says where it is this fault indeed."""
    subjects: tuple[str, ...]
    texts: tuple[str, ...]
    impacts: tuple[str, ...] = ("low",)
    """How many people it can concern."""


FAULTS = (
    Fault(
        key="locked",
        category="identity",
        on="account",
        title="Locked accounts",
        retired="Accounts locked by wrong passwords",
        symptoms="The account is locked after too many wrong passwords.",
        action="unlock_account",
        finding="locked",
        subjects=("Cannot sign in", "Locked out", "My account"),
        texts=(
            "I mistyped my password too often this morning and now it says that my account is locked.",
            "After my holiday I tried three old passwords; since then my account is locked.",
            "The sign-in page tells me that my account has been locked.",
        ),
    ),
    Fault(
        key="mfa",
        category="identity",
        on="account",
        title="Lost second factor",
        retired="New phone for the second factor",
        symptoms="The second factor (an app on a phone) is gone and must be set up anew.",
        action="reset_mfa",
        finding="registered",
        subjects=("Second factor", "New phone", "Sign-in code"),
        texts=(
            "I have a new phone and the app for the sign-in codes did not come along.",
            "My old phone has been traded in, so I cannot confirm my sign-ins any more.",
            "The authenticator app was wiped with the update and I get no codes.",
        ),
    ),
    Fault(
        key="password",
        category="identity",
        on="account",
        title="Expired passwords",
        retired="Passwords past their date",
        symptoms="The password is past its date and a new one must be chosen.",
        action="send_reset_link",
        finding="expired",
        subjects=("Password", "Password too old", "Sign-in refused"),
        texts=(
            "It says that my password has expired and that I should ask you for a link.",
            "My password ran out over the weekend; how do I get a new one?",
            "I was away for too long and my password is no longer valid because of its age.",
        ),
    ),
    Fault(
        key="vpn",
        category="network",
        on="laptop",
        title="VPN certificates",
        retired="VPN trouble on laptops",
        symptoms="The VPN refuses a laptop; its certificate has run out.",
        action="renew_certificate",
        finding="certificate expired",
        subjects=("VPN", "No VPN from home", "Tunnel error"),
        texts=(
            "From home the VPN refuses my laptop with a certificate error.",
            "The VPN client says that the certificate of my laptop is not accepted.",
            "I cannot get into the VPN: something about an invalid certificate.",
        ),
        impacts=("low", "medium"),
    ),
    Fault(
        key="wifi",
        category="network",
        on="laptop",
        title="Broken network profiles",
        retired="Wi-Fi does not connect",
        symptoms="A laptop does not join the Wi-Fi of the office; its network profile is broken.",
        action="reset_network",
        finding="network profile broken",
        subjects=("Wi-Fi", "No network", "Wireless"),
        texts=(
            "My laptop does not join the office Wi-Fi any more.",
            "The Wi-Fi here drops me at once, at home it works.",
            "Since yesterday my laptop finds the office Wi-Fi but does not get in.",
        ),
        impacts=("low", "medium"),
    ),
    Fault(
        key="disk",
        category="hardware",
        on="laptop",
        title="Full disks",
        retired="Laptops without space",
        symptoms="A laptop warns that its disk is full.",
        action="clean_disk",
        finding="disk full",
        subjects=("Disk full", "No space", "Cannot save"),
        texts=(
            "My laptop says that there is no space left on the disk.",
            "I cannot save anything, the disk of my laptop is full.",
            "Every hour a warning pops up that my disk is nearly full, and now it is.",
        ),
    ),
    Fault(
        key="battery",
        category="hardware",
        on="laptop",
        title="Worn batteries",
        retired="Laptop battery exchange",
        symptoms="A laptop's battery lasts for minutes only.",
        action="order_repair",
        finding="battery worn",
        subjects=("Battery", "Laptop goes off", "Power"),
        texts=(
            "The battery of my laptop lasts for ten minutes at most.",
            "Without its cable my laptop goes off at once, I think the battery is done.",
            "The battery shows 100 percent and a moment later the laptop is dead.",
        ),
    ),
    Fault(
        key="jam",
        category="printing",
        on="printer",
        title="Stuck print jobs",
        retired="Print queue hangs",
        symptoms="A printer prints nothing since a job hangs in it.",
        action="clear_print_queue",
        finding="queue stuck",
        subjects=("Printer {printer}", "Nothing is printed", "Printing hangs"),
        texts=(
            "The printer {printer} prints nothing, the jobs just pile up.",
            "My document has been waiting in {printer} for an hour, and so have all others.",
            "Somebody's huge job hangs in the printer {printer} and nothing comes out.",
        ),
        impacts=("medium", "high"),
    ),
    Fault(
        key="toner",
        category="printing",
        on="printer",
        title="Empty toner",
        retired="Pale prints",
        symptoms="A printer's prints are pale or it asks for toner.",
        action="order_toner",
        finding="toner empty",
        subjects=("Printer {printer}", "Pale prints", "Toner"),
        texts=(
            "The printer {printer} asks for new toner.",
            "Everything from {printer} comes out pale.",
            "One can hardly read what the printer {printer} prints, the toner seems to be empty.",
        ),
        impacts=("low", "medium"),
    ),
    Fault(
        key="down",
        category="software",
        on="service",
        title="Services that do not answer",
        retired="Outage of a service",
        symptoms="One of our services does not answer at all.",
        action="restart_service",
        finding="down",
        subjects=("{service} does not open", "{service}", "No {service}"),
        texts=(
            "{service} does not open, the page stays empty.",
            "{service} has not answered since this morning.",
            "When I open {service} I only get an error page.",
        ),
        impacts=("medium", "high"),
    ),
    Fault(
        key="slow",
        category="software",
        on="service",
        title="Slow services",
        retired="Speeding a service up",
        symptoms="One of our services answers, but very slowly.",
        action="clear_cache",
        finding="degraded",
        subjects=("{service} is slow", "{service}", "Waiting for {service}"),
        texts=(
            "{service} takes a minute for every click.",
            "{service} has become terribly slow since the update.",
            "One click in {service} and I can get a coffee before it answers.",
        ),
        impacts=("low", "medium", "high"),
    ),
    Fault(
        key="licence",
        category="access",
        on="licence",
        title="Licences",
        retired="Ordering software",
        symptoms="Somebody wants a licence for a program.",
        action="grant_licence",
        finding="granted",
        subjects=("Licence for {resource}", "{resource}", "New program"),
        texts=(
            "I need a licence for {resource} for my new task.",
            "Please give me {resource}, my trial is over.",
            "Could I have {resource}? Everybody else in the project has it.",
        ),
    ),
    Fault(
        key="folder",
        category="access",
        on="folder",
        title="Access to folders",
        retired="Folder permissions",
        symptoms="Somebody wants access to a shared folder.",
        action="grant_access",
        finding="granted",
        subjects=("Folder {resource}", "Access to {resource}", "Shared folder"),
        texts=(
            "I cannot open the folder {resource} and need it for the closing of the month.",
            "Please let me into the shared folder {resource}.",
            "I have moved to another group and need the folder {resource}.",
        ),
    ),
)
BY_KEY = {fault.key: fault for fault in FAULTS}
