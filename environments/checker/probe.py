"""The other end of the process check: reads subjects from stdin, plays them, prints their digests as one JSON line."""

from __future__ import annotations

import json
import os
import sys

from ..importing import import_place
from .determinism import digests
from .subject import Subject


def main(backwards: bool) -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what an environment prints is no answer
    found: dict[str, dict[str, str]] = {}
    for asked in json.load(sys.stdin):
        subject = Subject(asked["env_id"], asked["options"])
        subject.is_slow = asked["is_slow"]  # known already: to find out would play an episode more
        try:
            if asked["place"]:
                import_place(asked["place"])
            found[subject.name] = digests(subject, backwards=backwards)
        except Exception as error:
            found[subject.name] = {"error": f"another process cannot play it: {error!r}"}
    with os.fdopen(answers, "w") as out:
        out.write(json.dumps(found) + "\n")
