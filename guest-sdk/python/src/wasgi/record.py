"""What was built of what: for each file that `wasgi build` has made, how to make it again. `wasgi serve --dev` looks here for the
apps that it serves, by the hash of their files (docs/decisions/0019-rebuild.md)."""

import hashlib
import json
import os
import sys
import tempfile

from . import cache

VERSION = 1

# More than anybody works on.
_RECORDS_MAX = 100


def keep(contents, options, state):
    """To be called before the file is in its place: whoever finds it there looks for its record."""
    place = cache.folder() / "builds"
    # It says what a host runs, and may hold what `-e` was given: it is its user's alone.
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    # -P: a module of the app's folder may be called as one of the standard library's.
    arguments = ["--watch", "--events", *_arguments(options)]
    record = {
        "version": VERSION,
        "command": [sys.executable, "-P", "-m", "wasgi", "build", *arguments],
        "environment": {name: os.environ.get(name) for name in ("PYTHONPATH", "VIRTUAL_ENV")},
        "folder": os.getcwd(),
        "built": state,
    }
    name = hashlib.sha256(contents).hexdigest()
    with tempfile.NamedTemporaryFile("w", dir=place, prefix=".record-", delete=False) as file:
        json.dump(record, file)
    os.replace(file.name, place / f"{name}.json")
    records = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in records[_RECORDS_MAX:]:
        old.unlink(missing_ok=True)


def _arguments(options):
    """As they were given, with paths that are true anywhere."""
    arguments = ["--chdir", str(options.chdir.resolve())]
    if options.requirements is not None:
        arguments += ["--requirements", str(options.requirements.resolve())]
    for path in options.include:
        arguments += ["--include", str(path.resolve())]
    for pair in options.env:
        arguments += ["--env", pair]
    for path in options.warm:
        arguments += ["--warm", path]
    if options.target is not None:
        arguments.append(options.target)
    return arguments
