"""Requests to elsewhere, as Python programs make them, and what they keep in stores. The query is a word and its fields, with commas between them."""

import http.client
import sqlite3
import urllib.error
import urllib.parse
import urllib.request

import requests
from wasgi import keyvalue


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    word, *fields = environ["QUERY_STRING"].split(",")
    try:
        answer = WORDS[word](*fields)
    except Exception as error:
        answer = f"error {type(error).__name__}: {error}"
    return [answer.encode()]


def urlopen(url, body=None):
    request = urllib.request.Request(url, body.encode() if body else None, {"X-Given": "by urllib"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return f"{response.status} {response.headers['Content-Type']} {response.read().decode()}"


def client(place, *paths):
    """Several requests over one connection object."""
    return _ask(http.client.HTTPConnection(place), paths)


def secure_client(place, *paths):
    return _ask(http.client.HTTPSConnection(place), paths)


def _ask(connection, paths):
    answers = []
    for path in paths:
        connection.request("GET", path)
        response = connection.getresponse()
        answers.append(f"{response.status} {response.read().decode()}")
    connection.close()
    return "; ".join(answers)


def chunks(place, count):
    """A body of unknown length."""
    connection = http.client.HTTPConnection(place)
    connection.request("POST", "/count", body=(b"x" * 1000 for _ in range(int(count))), encode_chunked=True)
    return connection.getresponse().read().decode()


def large(url):
    """Read piece by piece, and not to the end."""
    with urllib.request.urlopen(url) as response:
        return str(sum(len(response.read(100_000)) for _ in range(5)))


def get(url):
    return f"{(response := requests.get(url, timeout=20)).status_code} {response.text}"


def post(url, body):
    return f"{(response := requests.post(url, json={'given': body}, timeout=20)).status_code} {response.text}"


def session(*urls):
    with requests.Session() as session:
        return "; ".join(session.get(url, timeout=20).text for url in urls)


def kept(name, key):
    store = keyvalue.open(name)
    store.set_many({key: "text", "number": b"41"})
    store.update(key, lambda old: old + b"!")
    numbers = store.increment("number"), store.increment("number", -2)
    store.set("last", b"\0\xff")
    keys = ",".join(store.keys())
    found = store.get_many([key, "none", "last"])
    store.delete_many([key, "number"])
    store.delete("last")
    return f"{found} {numbers} [{keys}] {store.exists(key)} {store.get('none', 'none')}"


def raced(name, key, value):
    """Another call is faster than the first try."""
    store, seen = keyvalue.open(name), []

    def change(old):
        seen.append(old)
        if len(seen) == 1:
            store.set(key, "faster")
        return value

    store.update(key, change)
    return f"{seen} {store.get(key)}"


def rows(count):
    """Adds so many, each for itself; how many there are."""
    database = sqlite3.connect("/data/db.sqlite3")
    database.execute("create table if not exists rows (text)")
    for _ in range(int(count)):
        database.execute("insert into rows values (?)", ("x" * 2000,))
        database.commit()
    return str(database.execute("select count(*) from rows").fetchone()[0])


def visit(name):
    return str(keyvalue.open(name).increment("visits"))


WORDS = {
    "kept": kept,
    "raced": raced,
    "visit": visit,
    "rows": rows,
    "urlopen": urlopen,
    "client": client,
    "secure-client": secure_client,
    "chunks": chunks,
    "large": large,
    "requests": get,
    "requests-post": post,
    "session": session,
}
