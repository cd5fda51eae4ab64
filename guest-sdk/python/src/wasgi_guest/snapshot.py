"""The build inside: the application is imported, and what is in memory then is what every instance begins with. The builder's
order is `build.json` beside this package, and what it is told is `report.json`."""

import contextlib
import functools
import importlib
import inspect
import json
import os
import re
import sys
import tempfile

from . import (
    caught,
    chance,
    databases,
    digests,
    django,
    executor,
    failure,
    flask,
    folders,
    handles,
    logs,
    outbound,
    practice,
    servers,
    settled,
    targets,
    temporary,
    warm,
    world,
)
from .watch import Watch

# Where this package lies.
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Imported late by nearly every app, and so by every fresh instance.
_EARLY = (
    "_wasgi_native",
    "cgi",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.punycode",
    "encodings.utf_8_sig",
    "http.cookies",
    "importlib.resources",
    "locale",
    "mimetypes",
    "stringprep",
    "tempfile",
    "traceback",
    "unicodedata",
    "zoneinfo",
)


def take():
    """Imports the application. What goes wrong is in the report, for the builder to explain."""
    with open(f"{_HERE}/build.json") as file:
        order = json.load(file)
    report = {}
    try:
        return _import(order, report)
    except BaseException as error:
        report["failure"] = failure.described(error)
        raise
    finally:
        with open(f"{_HERE}/report.json", "w") as file:
            json.dump(report, file)


def _import(order, report):
    os.environ.update(order["environ"])
    # As under a server that was started in the app's folder: without a file, the program would pass for an interactive session.
    os.chdir(world.APP)
    sys.modules["__main__"].__file__ = f"{_HERE}/wasgi_guest/entry.py"
    for name in _EARLY:
        importlib.import_module(name)
    caught.install()
    servers.install()
    digests.install()
    temporary.install()
    executor.install()
    folders.install()
    databases.install()
    logs.install()
    outbound.install()
    watch = Watch(functools.partial(world.is_in, world.APP))
    before, named = set(sys.modules), []
    try:
        with watch:
            app = targets.load(order["module"], order["expression"])
            if "django.conf" in sys.modules:
                django.finish(report)
            if "flask" in sys.modules:
                found, named = flask.finish(app, report)
                # It is nobody's request: what goes wrong there goes wrong again where somebody asks.
                with contextlib.suppress(Exception):
                    practice.flask(found)
            report["warmed"] = warm.app(app, order["warm"])
            databases.finish(named, report)
            logs.finish(report)
            folders.finish(report)
        report["data"] = report.get("data") or _names_data([*order["environ"].values(), *_settings(app)])
    finally:
        report["variables"] = _listed(watch.variables)
        report["copies"] = sorted(watch.copies)
        report["draws"] = _listed(watch.draws)
        report["notes"] = servers.notes
    warm.adapter()
    _forget()
    report["open"] = handles.left_open()
    report["modules"] = sorted(set(sys.modules) - before)
    report["application"] = _called(app)
    settled.settle()
    return app


def _called(app):
    """As a person would: a function by its name, an object by its class."""
    if inspect.isroutine(app):
        return f"{app.__module__}.{app.__qualname__}"
    return f"{type(app).__module__}.{type(app).__qualname__}"


def _settings(app):
    """The values of a Flask app's settings."""
    config = getattr(app, "config", None)
    return list(config.values()) if isinstance(config, dict) else []


def _names_data(values):
    """Whether one of them names a place below /data."""
    return any(re.match(rf"([\w+]+:///)?{world.DATA}/", value) for value in values if isinstance(value, str))


def _listed(notes):
    return [[file, line, sorted(what)] for (file, line), what in sorted(notes.items())]


def _forget():
    """What is true while the app is built is not true later: what was found out about folders, and what has to differ between instances.
    (What the interpreter knows better itself, the environment and the seed of `random`, it renews.)"""
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            del sys.path_importer_cache[path]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    os.chdir(world.APP)
    tempfile.tempdir = None
    # The names of temporary files come from a generator of random numbers of their own.
    tempfile._name_sequence = None
    if "uuid" in sys.modules:
        uuid = sys.modules["uuid"]
        # Of uuid1, uuid6 and uuid7: which machine, and when it was the last time.
        for name in vars(uuid):
            if name == "_node" or name.startswith("_last_"):
                setattr(uuid, name, None if name != "_last_counter_v7" else 0)
    chance.install()
    world.wake()


def thaw():
    """At the beginning of an instance's first call: each fresh call pays for what is done here."""
    if folders.wanted:
        folders.wake()
    if databases.kept_open:
        databases.wake()
    # As bytes, beside `os.environ`, which would take as long for this as for the rest of a small call.
    if b"TMPDIR" in os.environ._data:
        with contextlib.suppress(OSError):
            os.makedirs(os.environ["TMPDIR"], exist_ok=True)
