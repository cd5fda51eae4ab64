"""`wasgi build --watch`: builds again whenever something changes that the app is made of."""

import json
import os
import select
import sys
import time

from . import build, sources
from .errors import BuildError

# How often sources are looked at. What is being written has come to rest when it looks the same twice.
_INTERVAL = 0.5


def run(options):
    """Until standard input ends, or for ever where it is a terminal."""
    built = options.built
    while True:
        state = _state(options)
        if state is not None and state != built and _is_at_rest(options, state):
            built = state
            _build(options)
        if _has_ended():
            return


def _build(options):
    _tell(options, event="building")
    began = time.monotonic()
    try:
        build.run(options)
    except BuildError as error:
        build.say(f"error: {error}\nwaiting for a change")
        _tell(options, event="failed", reason=str(error))
    else:
        build.say("waiting for a change")
        _tell(options, event="built", seconds=round(time.monotonic() - began, 1))


def _tell(options, **event):
    if options.events:
        print(json.dumps(event), flush=True)


def _is_at_rest(options, state):
    time.sleep(_INTERVAL / 2)
    return _state(options) == state


def _state(options):
    """None where something went while one looked: there will be another look."""
    try:
        return sources.state(options)
    except OSError:
        return None


def _has_ended():
    """Who started this with a pipe as its input ends it by closing that."""
    if sys.stdin is None or sys.stdin.isatty():
        time.sleep(_INTERVAL)
        return False
    readable, _, _ = select.select([sys.stdin], [], [], _INTERVAL)
    return bool(readable) and not os.read(sys.stdin.fileno(), 4096)
