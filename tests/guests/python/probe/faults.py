"""Everything that a Python app can do wrong, by name."""

import os
import sys
import threading
import time

kept = []


class ProbeError(Exception):
    pass


def run(query):
    match query.text("kind", "raise"):
        case "raise":
            raise ProbeError("secret reason")
        # What no except clause of a careful server may miss.
        case "panic":
            raise PanicError("secret panic")
        case "exit":
            sys.exit("secret exit")
        case "interrupt":
            raise KeyboardInterrupt
        case "generator-exit":
            raise GeneratorExit
        case "abort":
            os.abort()
        case "spin":
            while True:
                pass
        case "spin-for":
            end = time.monotonic() + query.number("ms") / 1000
            while time.monotonic() < end:
                pass
        case "sleep":
            time.sleep(query.number("ms") / 1000)
        case "memory":
            for _ in range(query.number("bytes", 1 << 40) >> 20):
                kept.append(b"\1" * (1 << 20))
        case "recurse":
            recurse()
        case "thread":
            threading.Thread(target=print).start()
        case "unprintable":
            raise Unprintable
        case kind:
            raise LookupError(f"no fault {kind}")


class PanicError(BaseException):
    """Not an Exception: what `except Exception` lets through."""


class Unprintable(Exception):
    def __str__(self):
        raise ProbeError("secret reason")


def recurse():
    return recurse() + 1
