"""The classic sample's sentence, with its length: uWSGI keeps no connection open where an app gives none."""


def application(environ, start_response):
    body = b"This is a sample WSGI Application."
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
