"""Folders in /data that an import makes (`os.makedirs(UPLOADS, exist_ok=True)`). There is no /data then: each instance makes them as it begins."""

import contextlib
import functools
import os

from . import world

wanted = []
_mkdir = os.mkdir


def install():
    """Before the app is imported. `os.makedirs` and `pathlib` come by here, too."""

    @functools.wraps(_mkdir)
    def mkdir(path, mode=0o777, *, dir_fd=None):
        full = "" if world.is_served or dir_fd is not None else os.path.abspath(os.fsdecode(path))
        if full not in (os.path.dirname(world.DATA), world.DATA) and not world.is_in(world.DATA, full):
            return _mkdir(path, mode, dir_fd=dir_fd)
        if full not in wanted:
            wanted.append(full)

    os.mkdir = mkdir


def finish(report):
    """Once the app is imported."""
    os.mkdir = _mkdir
    if any(world.is_in(world.DATA, full) for full in wanted):
        report["data"] = True


def wake():
    """There is a host."""
    for full in wanted:
        with contextlib.suppress(OSError):
            os.mkdir(full)
