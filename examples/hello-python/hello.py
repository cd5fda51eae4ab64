"""The classic sample of PEP 3333, as `python3 hello.py` serves it with the standard library; here unchanged."""

from wsgiref.simple_server import make_server


def hello_world_app(environ, start_response):
    status = "200 OK"
    headers = [("Content-type", "text/plain; charset=utf-8")]
    start_response(status, headers)
    return [b"Hello World"]


if __name__ == "__main__":
    with make_server("", 8000, hello_world_app) as httpd:
        print("Serving on port 8000...")
        httpd.serve_forever()
