"""Runbooks: the knowledge base as text, made of the faults and the codes of a world."""

from __future__ import annotations

from .world import Runbook, World

_CATEGORIES = {
    "identity": "accounts, passwords, second factor",
    "network": "VPN and Wi-Fi",
    "hardware": "laptops: disk, battery",
    "printing": "printers",
    "software": "our services: down or slow",
    "access": "licences and folders",
    "security": "security incidents",
}
_CHECKS = {
    "account": "check_identity of the ticket, by {method}",
    "laptop": "diagnose the laptop",
    "printer": "diagnose the printer",
    "service": "service_status of the service",
    "licence": "read_ticket must show that the owner of the licence has granted it",
    "folder": "read_ticket must show that the owner of the folder has granted it",
}
_TARGETS = {
    "account": "the requester's number",
    "laptop": "the laptop's tag",
    "printer": "the printer's tag",
    "service": "the service's name",
    "licence": "the licence's name",
    "folder": "the folder's name",
}
_CONDITIONS = {
    "locked": "if read_user shows the account as locked and the identity is confirmed",
    "mfa": "if the identity is confirmed",
    "password": "if read_user shows the password as expired and the identity is confirmed",
    "battery": 'if the diagnosis is "battery worn" and the warranty (read_asset) has not run out',
    "licence": "if it is granted",
    "folder": "if it is granted",
}


def rows(world: World) -> list[list[str]]:
    """The knowledge base: current runbooks, the guide for triage and, at level 3, retired ones with other codes."""
    found = [[book.id, book.fault.title, "current", body(book)] for book in world.runbooks.values()]
    found.append([world.guide, "Triage guide", "current", guide(world)])
    found += [[book.id, book.fault.retired, "retired", body(book)] for book in world.retired]
    return sorted(found)


def body(book: Runbook) -> str:
    fault = book.fault
    condition = _CONDITIONS.get(fault.key, f'if it says "{fault.finding}"')
    lines = [
        f"Symptoms: {fault.symptoms}",
        f"1. Verify: {_CHECKS[fault.on].format(method=book.method)}.",
        f"2. Act, {condition}: run_action {fault.action}, target: {_TARGETS[fault.on]}.",
        f"3. Close: add the note {book.note}, then resolve with {book.resolution}.",
        f"In any other case: escalate to {book.queue}, reason {book.reason}."
        if fault.on not in ("licence", "folder") and fault.key != "mfa"
        else "Approvals and identities that are missing: see the policy.",
    ]
    return "\n".join(lines)


def guide(world: World) -> str:
    lines = [
        f"{category} ({about}): queue {world.queue_of[category]}"
        for category, about in _CATEGORIES.items()
        if category != "security"
    ]
    return "Categories, what belongs to them, and the queue that a ticket goes to:\n" + "\n".join(lines)
