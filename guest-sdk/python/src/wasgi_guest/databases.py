"""Databases of SQLite beside the code, where nothing can be written when the app is served: they are in /data then, under whatever framework.
One that an import makes (`db.create_all()`) is what that in /data begins with."""

import contextlib
import functools
import gc
import os
import shutil
import sys

from . import imports, world

# Those that were not there before the app was imported, and that the import has asked for.
asked = set()
# How each connection of an import was made, by its identity (they have no weak references); those that it keeps, which every instance opens again.
_connected = {}
kept_open = []


def install():
    """Before the app is imported."""
    imports.after("sqlite3.dbapi2", _wrap)


def _wrap(module):
    connect = module.connect

    @functools.wraps(connect)
    def connect_in_data(database, *arguments, **keywords):
        connection = connect(_resolved(database), *arguments, **keywords)
        if not world.is_served:
            _connected[id(connection)] = database, arguments, keywords
        return connection

    module.connect = connect_in_data


def place(database):
    """Where a database is kept for which the app has another place; None if that is where it is."""
    try:
        name = os.fsdecode(database)
    except TypeError:
        return None
    if not name or name == ":memory:" or name.startswith("file:"):
        return None
    full = os.path.abspath(name)
    # Who goes up from a module to the folder of its project may come out here.
    is_at_top = os.path.dirname(full) == os.path.dirname(world.APP)
    if not is_at_top and not world.is_own(full):
        return None
    return f"{world.DATA}/{_short(full).strip('/').replace('/', '-')}"


def _short(full):
    return full.removeprefix(f"{world.APP}/")


def _resolved(database):
    kept = place(database)
    if kept is None:
        if world.is_served and world.is_in(world.DATA, str(database)) and not os.path.isdir(world.DATA):
            raise _no_data(str(database))
        return database
    full = os.path.abspath(os.fsdecode(database))
    travels = os.path.exists(full)
    if not world.is_served:
        if not travels:
            asked.add(full)
        return database
    if full not in asked:
        if travels:
            return database
    elif travels and not os.path.exists(kept):
        _begin(full, kept)
    if not os.path.isdir(world.DATA):
        raise _no_data(full)
    return kept


def _begin(made, kept):
    """Its own copy of what the import has made. Who has no /data is told so by who asks for it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(made, f"{kept}.new")
        os.replace(f"{kept}.new", kept)


def _no_data(full):
    from sqlite3 import OperationalError

    where = "" if world.is_in(world.DATA, full) else f" is in the app's folder, where nothing can be written: a database is kept in {world.DATA}, but"
    return OperationalError(
        f"unable to open database file: {full}{where or ':'} there is no {world.DATA}. The app asks for it (data = true in its sidecar), and the operator grants it "
        "([grant] data in wasgi.toml)"
    )


def finish(named, report):
    """Once the app is imported: which databases are elsewhere. `named`: those that its settings name, by their paths."""
    named = {os.path.abspath(name) for name in named if place(name)} | set(map(os.path.abspath, _of_engines()))
    _close_connections()
    for full in list(asked):
        if os.path.isfile(full) and not os.path.getsize(full):
            # Opened, and nothing was written.
            os.unlink(full)
    for full in sorted(named | asked):
        report.setdefault("places", []).append([None, 0, told(full)])
    if any(full in asked or not os.path.exists(full) for full in named | asked):
        report["data"] = True
    report["begun"] = sorted(_short(full) for full in asked if os.path.exists(full))


def told(full):
    """What becomes of a database beside the code."""
    what = f"the database {_short(full)}"
    if not os.path.exists(full):
        return f"{what} would be in the app's folder, where nothing can be written when it is served: it is {place(full)} instead"
    if full in asked:
        return (
            f"{what} is made while the app is imported, which is now: when it is served, {place(full)} begins as a copy of it. What is there already stays as "
            "it is: a table that comes later is made by a command (docs/guide-python.md)"
        )
    return f"{what} is in the file, where nothing can be written when it is served: it can be read only"


def _of_engines():
    """The databases that SQLAlchemy knows of, whose connections are closed: no instance would have them."""
    engines = sys.modules.get("sqlalchemy.engine")
    if engines is None:
        return
    gc.collect()
    for thing in gc.get_objects():
        if issubclass(type(thing), engines.Engine) and thing.dialect.name == "sqlite" and place(thing.url.database or ""):
            thing.dispose()
            yield thing.url.database


def _close_connections():
    """Of a program that connects once, at its top (`db = sqlite3.connect("shop.db")`): what it has been given is opened again by `wake`."""
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is None:
        return
    for thing in gc.get_objects():
        if not issubclass(type(thing), sqlite3.Connection) or id(thing) not in _connected:
            continue
        with contextlib.suppress(sqlite3.Error):
            # One that is closed raises, and one in memory is in the snapshot, whole.
            if next(iter(thing.execute("PRAGMA database_list")))[2]:
                thing.commit()
                kept_open.append((thing, _connected[id(thing)], thing.row_factory, thing.text_factory))
                thing.close()


def wake():
    """There is a host."""
    while kept_open:
        connection, (database, arguments, keywords), rows, text = kept_open.pop()
        keywords.pop("factory", None)
        try:
            connection.__init__(_resolved(database), *arguments, **keywords)
            connection.row_factory, connection.text_factory = rows, text
        except sys.modules["sqlite3"].Error as error:
            # Who uses it finds it closed.
            print(error, file=sys.stderr)
