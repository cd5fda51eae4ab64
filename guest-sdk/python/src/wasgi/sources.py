"""What an app is made of, as far as one sees it from outside: whether it has to be built again."""

import hashlib
import re

from . import dependencies, stage


def state(options):
    """A digest of what the app is made of, by names, sizes and times."""
    digest = hashlib.sha256()
    for path in _paths(options):
        try:
            stat = path.stat()
        except OSError:
            continue
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _paths(options):
    places = [options.chdir.resolve(), *(path.resolve() for path in options.include)]
    if options.requirements is not None:
        yield from _requirements(options.requirements.resolve(), set())
    elif environment := dependencies.environment():
        # What pip installs or removes shows here.
        yield from sorted(environment.iterdir())
        places += [path for _, path in dependencies.referred(environment)]
    for path in places:
        if path.is_dir():
            yield from (file for file, kind in stage.files(path) if kind is stage.Kind.TAKEN)
        else:
            yield path


def _requirements(path, seen):
    """The file, and those that it includes (`-r base.txt`), which pip looks for beside it."""
    if path in seen:
        return
    seen.add(path)
    yield path
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        if included := re.match(r"\s*(?:-r|--requirement|-c|--constraint)[ =]*(\S+)", line):
            yield from _requirements((path.parent / included[1]).resolve(), seen)
