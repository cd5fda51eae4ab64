"""The guest's standard library. It comes out of the first build and is kept: only the interpreter inside has all of it."""

import os
import shutil
from importlib import metadata
from pathlib import Path

# What the guest calls it.
NAME = "library.tar"


def cached():
    """Where it is kept: a file of its own for each componentize-py."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "wasgi" / f"library-{metadata.version('componentize-py')}.tar"


def keep(tar):
    place = cached()
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_suffix(f".{os.getpid()}")
    shutil.move(tar, beside)
    os.replace(beside, place)
