"""What an import does that a snapshot makes permanent: it reads the environment, and it draws secrets."""

import os
import random
import sys

from . import world

# Everything in the standard library that draws random bytes of the system comes by one of these.
_DRAWS = (
    (os, "urandom"),
    (random.SystemRandom, "random"),
    (random.SystemRandom, "getrandbits"),
    (random.SystemRandom, "randbytes"),
    # What a module's own generator draws is no secret, and taken for one all the same.
    *((random, name) for name in random.__all__ if hasattr(getattr(random, name), "__self__") and not name.endswith(("seed", "state"))),
)

# What of the standard library reads the environment on behalf of who calls it; the rest has reasons of its own (PATH, TMPDIR), about which nobody
# can do anything.
_STANDARD_READERS = ("_collections_abc", "os", "posixpath")

# Packages that do so.
_READERS = ("decouple", "dynaconf", "environ", "environs", "everett", "goodconf", "prettyconf", "pydantic_settings")


class Watch:
    """While it is entered, it notes which lines of the app do what; `place` says whether a file is the app's."""

    def __init__(self, place):
        self._place = place
        # (file, line) → names of variables; → what was called
        self.variables = {}
        self.draws = {}
        # (file, line) that read all of them
        self.copies = set()
        self._iterations = {}
        # The app may have kept what stood in for a function.
        self._is_over = False

    def __enter__(self):
        self._getitem = os._Environ.__getitem__
        os._Environ.__getitem__ = self._reading()
        self._iter = os._Environ.__iter__
        os._Environ.__iter__ = self._iterating()
        self._originals = [(owner, name, getattr(owner, name)) for owner, name in _DRAWS]
        for owner, name, original in self._originals:
            setattr(owner, name, self._drawing(f"{owner.__name__}.{name}", original))
        return self

    def __exit__(self, *exc_info):
        self._is_over = True
        os._Environ.__getitem__ = self._getitem
        os._Environ.__iter__ = self._iter
        self._tell_copies()
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    def _reading(self):
        getitem = self._getitem

        def __getitem__(environ, key):
            self._note(self.variables, str(key), _reads_for_others)
            return getitem(environ, key)

        return __getitem__

    def _iterating(self):
        iterate = self._iter

        def __iter__(environ):
            self._note(self._iterations, "all", _reads_for_others)
            return iterate(environ)

        return __iter__

    def _tell_copies(self):
        """A line that goes through all variables and reads each, as `dict(os.environ)`, wants none of them by name."""
        every = set(os.environ)
        for place in self._iterations:
            if every <= self.variables.get(place, set()):
                self.variables.pop(place, None)
                self.copies.add(place)

    def _drawing(self, name, original):
        def draw(*arguments, **keywords):
            if not self._is_over:
                self._note(self.draws, name, _is_library)
            return original(*arguments, **keywords)

        return draw

    def _note(self, notes, what, acts_for_others):
        """The line of the app that asks, by whatever acts for it: what its packages do is theirs."""
        frame = sys._getframe(2)
        while frame is not None and acts_for_others(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None and self._place(frame.f_code.co_filename):
            notes.setdefault((frame.f_code.co_filename, frame.f_lineno), set()).add(what)


def _reads_for_others(file):
    """A package that reads settings, or what it and the app have of the standard library for that."""
    if world.is_in(world.PACKAGES, file):
        return file.split("/")[2].removesuffix(".py") in _READERS
    # Some of it is frozen into the interpreter: `<frozen os>`.
    return _is_library(file) and os.path.basename(file).removeprefix("<frozen ").removesuffix(".py").rstrip(">") in _STANDARD_READERS


def _is_library(file):
    """The standard library, or what is like it; not the import system, which asks for nobody."""
    if world.is_in(world.PACKAGES, file):
        return _reads_for_others(file)
    return file.startswith("/python/") or file.startswith("<frozen ") and not file.startswith("<frozen importlib")
