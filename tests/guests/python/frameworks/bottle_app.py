"""Bottle: routes, forms, cookies, templates, files, errors."""

import bottle
from bottle import Bottle, request, response, static_file, template

application = Bottle()
bottle.TEMPLATE_PATH.insert(0, "views")


@application.get("/hello/<name>")
def hello(name):
    return template("<b>Hello {{name}}</b>!", name=name)


@application.get("/view")
def view():
    return template("rows", rows=range(3))


@application.post("/form")
def form():
    response.set_cookie("seen", "yes", secret="only for tests")
    return {"name": request.forms.name, "seen": request.get_cookie("seen", secret="only for tests")}


@application.post("/upload")
def upload():
    file = request.files.get("file")
    data = file.file.read()
    return {"name": file.filename, "size": len(data), "sum": sum(data)}


@application.get("/file")
def file():
    return static_file("style.css", root="static")


@application.get("/generator")
def generator():
    for number in range(3):
        yield f"piece {number} "


@application.get("/fail")
def fail():
    raise ValueError("secret reason")


@application.error(404)
def missing(error):
    return "nothing here"
