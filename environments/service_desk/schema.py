"""The tables of the service desk, and the words that its columns hold."""

from __future__ import annotations

from typing import Literal

SCHEMA = """
CREATE TABLE people (
    id TEXT, name TEXT, email TEXT, department TEXT, site TEXT, manager TEXT, vip INTEGER, status TEXT,
    account TEXT, password TEXT, mfa TEXT
);
CREATE TABLE assets (
    tag TEXT, kind TEXT, model TEXT, owner TEXT, site TEXT, warranty TEXT, state TEXT, isolated INTEGER
);
CREATE TABLE services (name TEXT, owner TEXT, state TEXT, freeze TEXT);
CREATE TABLE resources (name TEXT, kind TEXT, owner TEXT);
CREATE TABLE grants (person TEXT, resource TEXT, PRIMARY KEY (person, resource));
CREATE TABLE queues (name TEXT);
CREATE TABLE runbooks (id TEXT, title TEXT, status TEXT, body TEXT);
CREATE TABLE tickets (
    id TEXT, opened TEXT, requester TEXT, subject TEXT, body TEXT, asset TEXT, genuine INTEGER,
    category TEXT, priority TEXT, queue TEXT, status TEXT, resolution TEXT, reason TEXT
);
CREATE TABLE notes (ticket TEXT, code TEXT, PRIMARY KEY (ticket, code));
CREATE TABLE links (ticket TEXT, original TEXT, PRIMARY KEY (ticket, original));
CREATE TABLE approvals (ticket TEXT, approver TEXT, status TEXT, PRIMARY KEY (ticket, approver));
CREATE TABLE actions (ticket TEXT, action TEXT, target TEXT);
"""
"""What is found out by checks alone (a device's state, whether a requester is genuine) is shown by no search."""

Category = Literal["identity", "network", "hardware", "printing", "software", "access", "security"]
Priority = Literal["P1", "P2", "P3", "P4"]
Status = Literal["new", "open", "waiting", "escalated", "duplicate", "resolved"]
Method = Literal["callback", "badge", "question"]
Action = Literal[
    "unlock_account",
    "reset_mfa",
    "send_reset_link",
    "renew_certificate",
    "reset_network",
    "clean_disk",
    "order_repair",
    "clear_print_queue",
    "order_toner",
    "restart_service",
    "clear_cache",
    "grant_licence",
    "grant_access",
    "isolate_device",
    "end_sessions",
]
PRIORITIES = ("P1", "P2", "P3", "P4")
OPEN = ("new", "open", "waiting", "escalated")
