"""Flask: a guest book in the visitor's own session cookie."""

import os

from flask import Flask, redirect, render_template, request, session, url_for

app = Flask(__name__)


@app.before_request
def read_secret():
    # Not at import: that is when the app is built, and what it reads then is in the file for everybody.
    app.secret_key = app.secret_key or os.environ.get("SECRET_KEY") or os.urandom(32)


@app.get("/")
def index():
    return render_template("index.html", notes=session.get("notes", []))


@app.post("/")
def add():
    session["notes"] = [*session.get("notes", []), request.form["note"][:100]][-20:]
    return redirect(url_for("index"))
