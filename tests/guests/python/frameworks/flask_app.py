"""Flask: templates, sessions, forms, uploads, streams, error handlers, a blueprint, passwords, files."""

import os
import time

from flask import (
    Blueprint,
    Flask,
    abort,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.utils import secure_filename

app = Flask(__name__)
app.config.update(SECRET_KEY="only for tests", MAX_CONTENT_LENGTH=1 << 20)

# As Flask's tutorial does.
os.makedirs(app.instance_path, exist_ok=True)

shop = Blueprint("shop", __name__, url_prefix="/shop", static_folder="shop_static")
passwords = {}


marked = []


@app.after_request
def mark(response):
    marked.append(request.path)
    response.headers["X-App"] = "flask"
    return response


@app.cli.command("registered")
def registered():
    """As `flask registered` would."""
    os.makedirs(app.instance_path, exist_ok=True)
    print(f"{len(passwords)} registered, {app.instance_path}")


@app.get("/practised")
def practised():
    """What was done before the first request: templates were compiled, and nothing of this file was run."""
    environment = vars(app).get("jinja_env")
    templates = sorted(name for _, name in environment.cache.keys()) if environment else None
    return jsonify(before=marked, templates=templates)


@app.get("/")
def index():
    return render_template("index.html", rows=[{"name": f"<row {number}>"} for number in range(20)])


@app.get("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return f"visit {session['count']}"


@app.post("/form")
def form():
    return jsonify(name=request.form["name"], all=request.form.getlist("tag"), query=request.args.get("q"))


@app.post("/upload")
def upload():
    file = request.files["file"]
    data = file.read()
    return {"name": secure_filename(file.filename), "type": file.mimetype, "size": len(data), "sum": sum(data)}


@app.get("/stream")
def stream():
    def lines():
        for number in range(3):
            yield f"line {number} of {request.path}\n"

    return stream_with_context(lines()), {"Content-Type": "text/plain"}


@app.get("/fail")
def fail():
    raise ValueError("secret reason")


@app.get("/fail-mine")
def fail_mine():
    try:
        raise ValueError("secret reason")
    except ValueError:
        app.logger.exception("caught by hand")
    return {"error": "try again"}, 503


class OwnValueError(ValueError):
    pass


@app.errorhandler(OwnValueError)
def handled(error):
    return {"error": "handled"}, 503


@app.get("/fail-handled")
def fail_handled():
    raise OwnValueError("secret reason")


@app.get("/fail-late")
def fail_late():
    def lines():
        yield "a line\n"
        raise ValueError("secret reason")

    return lines()


@app.get("/teapot")
def teapot():
    abort(418)


@app.errorhandler(404)
def not_found(error):
    return render_template("missing.html", path=request.path), 404


@app.errorhandler(418)
def is_teapot(error):
    return "short and stout", 418


@app.post("/register")
def register():
    passwords[request.form["user"]] = generate_password_hash(
        request.form["password"], request.form.get("method", "scrypt")
    )
    return passwords[request.form["user"]].split("$")[0]


@app.post("/login")
def login():
    if not check_password_hash(passwords[request.form["user"]], request.form["password"]):
        flash("wrong password")
        return redirect(url_for("index"))
    session["user"] = request.form["user"]
    return redirect(url_for("shop.cart"))


@app.get("/download")
def download():
    return send_file("static/style.css", as_attachment=True, download_name="späti.css")


@app.get("/late")
def late():
    """What is imported and opened by the request itself."""
    import colorsys
    import email.mime.multipart
    import xml.dom.minidom

    encoded = "ü".encode("cp1140")
    with open("static/style.css") as file:
        first = file.readline().strip()
    with open(os.path.join(os.path.dirname(__file__), "static", "style.css")) as file:
        assert file.readline().strip() == first
    here = time.strftime("%Y", time.gmtime(0))
    return jsonify(
        modules=[colorsys.__name__, email.mime.multipart.__name__, xml.dom.minidom.__name__],
        encoded=encoded.hex(),
        first=first,
        here=here,
    )


@shop.get("/cart")
def cart():
    return f"the cart of {session.get('user', 'nobody')} at {url_for('.cart')}"


app.register_blueprint(shop)
