"""A Flask page: twenty rows by Jinja, with something to escape in each."""

from flask import Flask, render_template

app = Flask(__name__)


@app.get("/")
def page():
    rows = [{"name": f"<row {number}>", "price": number * 3} for number in range(20)]
    return render_template("page.html", rows=rows)
