"""A classic: forms by the module `cgi`, error pages by `cgitb`."""

import cgi
import cgitb
import sys


def application(environ, start_response):
    try:
        form = cgi.FieldStorage(fp=environ["wsgi.input"], environ=environ, keep_blank_values=True)
        if "fail" in form:
            raise ValueError("shown on purpose")
        file = form["file"] if "file" in form else None
        answer = f"{form.getfirst('name', '')} {len(file.file.read()) if file is not None else 0}"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer.encode()]
    except ValueError:
        start_response("500 Internal Server Error", [("Content-Type", "text/html")], sys.exc_info())
        return [cgitb.html(sys.exc_info()).encode()]
