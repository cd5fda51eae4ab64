"""Folders in /data that an import makes (`os.makedirs(UPLOADS, exist_ok=True)`). There is no /data then: each instance makes them as it begins."""

import contextlib
import functools
import os

from . import world

_wanted = []
_mkdir = os.mkdir


def install():
    """Before the app is imported. `os.makedirs` and `pathlib` come by here, too."""

    @functools.wraps(_mkdir)
    def mkdir(path, mode=0o777, *, dir_fd=None):
        full = os.path.abspath(os.fsdecode(path)) if dir_fd is None else ""
        if full not in (os.path.dirname(world.DATA), world.DATA) and not world.is_in(world.DATA, full):
            return _mkdir(path, mode, dir_fd=dir_fd)
        if full not in _wanted:
            _wanted.append(full)

    os.mkdir = mkdir


def finish(report):
    """Once the app is imported."""
    if any(world.is_in(world.DATA, full) for full in _wanted):
        report["data"] = True


def wake():
    """There is a host."""
    os.mkdir = _mkdir
    for full in _wanted:
        with contextlib.suppress(OSError):
            os.mkdir(full)
