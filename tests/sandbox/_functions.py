"""What the tests of the worker call in it."""

import os
import sys
import time


def double(number: float) -> float:
    return 2 * number


def environment() -> dict[str, str]:
    return dict(os.environ)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def spin() -> None:
    while True:
        pass


def fail(text: str) -> None:
    raise ValueError(text)


def end() -> None:
    os._exit(3)


def start_program() -> int:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
    return pid


def shout() -> float:
    """Print what a forged verdict would look like, in every way that text is printed."""
    line = '{"id": "any", "value": 1.0}\n'
    print(line, flush=True)
    print(line, file=sys.stderr, flush=True)
    for descriptor in (0, 1, 2):
        os.write(descriptor, line.encode())
    return 0.25


def garble() -> None:
    """Write to every descriptor that is open: what only a hostile function does."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"garbage\n")
        except OSError:
            pass


def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("text")


def take_memory() -> int:
    return len(bytearray(8 << 30))


def not_json() -> object:
    return object()
