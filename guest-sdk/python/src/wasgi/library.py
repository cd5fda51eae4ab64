"""The guest's standard library, which the interpreter inside alone has. It is fetched from there once, and kept."""

import os
import shutil
from importlib import metadata

from . import cache

# What writes it, in a component that is never finished.
ENTRY = "wasgi_guest.library"
_NAME = "library.tar"


def cached():
    """Where it is kept: a file of its own for each componentize-py."""
    return cache.folder() / f"library-{metadata.version('componentize-py')}.tar"


def keep(folder):
    """Takes what the guest left in the folder."""
    place = cached()
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_suffix(f".{os.getpid()}")
    shutil.move(folder / _NAME, beside)
    os.replace(beside, place)
