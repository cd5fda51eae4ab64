"""Requests to elsewhere, as Python programs make them. The query is a word and its fields, with commas between them."""

import http.client
import urllib.error
import urllib.parse
import urllib.request

import requests


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


WORDS = {
    "urlopen": urlopen,
    "client": client,
    "secure-client": secure_client,
    "chunks": chunks,
    "large": large,
    "requests": get,
    "requests-post": post,
    "session": session,
}
