"""The command line: train, eval, explain, trace, sample, fetch, check, new, doctor.

A person's mistake ends with one message and exit code 2, never with a traceback. Heavy libraries are imported by the verb
that needs them.
"""

from __future__ import annotations

import importlib
import os
import sys

USAGE = """\
usage: swannery VERB ...

  train CONFIG.toml [--key value ...]   raise a policy; `quickstart` is packaged
  train FILE.py [--key value ...]       the quickstart with that file's own environments
  train --resume RUN                    go on with a run that was stopped or killed
  eval RUN_OR_POLICY [--key value ...]  held-out accuracy with intervals
  explain RUN                           why it does not learn, and which setting to change
  trace RUN [--step N] [--env ID]       every token of a step: trained or not, by how much, why not
  sample RUN_OR_POLICY [--env ID]       one transcript: reasoning, tool calls, rewards, token mask
  fetch smollm2                         a real policy, converted once into a cached folder
  check ID... | FILE.py | --all         what is wrong with an environment, with causes and cures
  new NAME --template single            a new environment: one file that works, one test
  doctor                                what this machine has, and what to do about what it lacks

`swannery VERB --help` tells the rest."""


VERBS = {
    "train": "cli:train",
    "eval": "cli_policies:evaluate",
    "sample": "cli_policies:sample",
    "explain": "cli_runs:explain",
    "trace": "cli_runs:trace",
    "fetch": "cli_policies:fetch",
    "check": "cli_environments:check",
    "new": "cli_environments:new",
    "doctor": "cli:doctor",
}
"""Where each verb is: module:function."""


def main() -> int:
    """Run one verb and return its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if arguments[0] == "--version":
        from . import __version__

        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        import difflib

        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(VERBS)}."
        print(f"swannery: no verb {verb!r}. {hint}", file=sys.stderr)
        return 2
    try:
        module, name = VERBS[verb].split(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)(rest)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("swannery"):
            raise
        print(f"swannery {verb} needs {error.name}: pip install 'swannery[train]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
