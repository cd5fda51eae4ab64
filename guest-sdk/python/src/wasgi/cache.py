"""What the builder keeps between builds, in the user's cache."""

import os
from pathlib import Path


def folder():
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "wasgi"
