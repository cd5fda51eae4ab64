"""What docs/guide-python.md says of the standard library: each line of its table that can be tried here, by name. What is answered is what
became of it; what is not there answers with its exception."""

import asyncio
import codecs
import concurrent.futures
import datetime
import encodings
import importlib
import importlib.resources
import os
import pkgutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.request
import zoneinfo

import faults


def absent(name):
    """An import that fails, and says so."""
    importlib.import_module(name)
    return "it is there"


def database():
    connection = sqlite3.connect("/data/promise.sqlite3")
    with connection:
        connection.execute("create table if not exists t (a)")
        connection.execute("insert into t values (?)", ("kept",))
    mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
    return f"{connection.execute('select a from t').fetchone()[0]}, {mode}"


def zones():
    summer = datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    return f"{summer.utcoffset()} {len(zoneinfo.available_timezones()) > 400}"


def all_encodings():
    """Every one that is not of another system, nor needs bz2."""
    names = {module.name for module in pkgutil.iter_modules(encodings.__path__)} - {"bz2_codec", "mbcs", "oem"}
    for name in names:
        importlib.import_module(f"encodings.{name}")
    return ascii("ä".encode("iso8859_15").decode("iso8859_15") + "é".encode("cp1252").decode("cp1252") + codecs.encode("a", "rot13"))


def files():
    """By `__file__`, by a relative path, as a package's data, and a module that nobody has imported before."""
    late = importlib.import_module("pydoc")
    beside = os.path.join(os.path.dirname(faults.__file__), "script.py")
    data = importlib.resources.files("zoneinfo").joinpath("__init__.py")
    return f"{late.__name__} {os.path.isfile(beside)} {os.path.isfile('faults.py')} {data.is_file()} {os.getcwd()}"


def read_only():
    with open("/0/new.txt", "w") as file:
        return str(file.write("x"))


def temporary_files():
    with tempfile.TemporaryFile() as file, tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        for kind in (file, spooled):
            kind.write(b"x" * 100)
            kind.seek(0)
        return f"{len(file.read())} {len(spooled.read())}"


def named_temporary_files():
    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as folder:
        file.write(b"x")
        file.flush()
        return f"{os.path.dirname(file.name)} {os.path.getsize(file.name)} {os.path.isdir(folder)}"


def executor():
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        failed = pool.submit(int, "x")
        return f"{list(pool.map(lambda number: number * 2, range(3)))} {type(failed.exception()).__name__}"


async def _awaited():
    await asyncio.sleep(0.01)
    return await asyncio.to_thread(lambda: "from a thread")


def event_loop():
    return f"{asyncio.run(_awaited())} {asyncio.run(_awaited())}"


def thread():
    threading.Thread(target=print).start()
    return "it runs"


def process():
    return str(subprocess.run(["true"]))


def processes():
    return str(importlib.import_module("multiprocessing").Pool(1))


def fork():
    return str(os.fork())


def handler():
    signal.signal(signal.SIGTERM, lambda *_: None)
    return "it is set"


def listening():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
    return "it listens"


def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return str(sender.sendto(b"x", ("127.0.0.1", 9)))


def time_zone():
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    return time.strftime("%H", time.localtime(0))


def local_time():
    return f"{time.tzname[0]} {time.localtime(0).tm_hour}"


def request():
    return urllib.request.urlopen("http://127.0.0.1:9/").read().decode()


def try_(name):
    """What became of it."""
    what, _, argument = name.partition(":")
    try:
        return PROMISES[what](argument) if argument else PROMISES[what]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


PROMISES = {
    "absent": absent,
    "database": database,
    "zones": zones,
    "encodings": all_encodings,
    "files": files,
    "read-only": read_only,
    "temporary-files": temporary_files,
    "named-temporary-files": named_temporary_files,
    "executor": executor,
    "event-loop": event_loop,
    "thread": thread,
    "process": process,
    "processes": processes,
    "fork": fork,
    "handler": handler,
    "listening": listening,
    "datagram": datagram,
    "time-zone": time_zone,
    "local-time": local_time,
    "request": request,
}
