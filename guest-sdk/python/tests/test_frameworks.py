"""What runs inside with Flask and Django, with stand-ins for them: python3 -m unittest discover guest-sdk/python/tests"""

import contextlib
import functools
import io
import linecache
import logging
import os
import sqlite3
import sys
import types
import unittest
from pathlib import Path
from unittest import mock

from test_guest import Folder, run
from wasgi_guest import caught, databases, django, flask, world


class Caught(unittest.TestCase):
    def setUp(self):
        caught.begin()
        self.addCleanup(logging.setLogRecordFactory, logging.getLogRecordFactory())
        caught.install()
        self.logger = logging.Logger("a framework's")

    def raise_one(self):
        raise ValueError("secret reason")

    def log(self, **keywords):
        try:
            self.raise_one()
        except ValueError as error:
            self.logger.error("it failed", **keywords)
            return error

    def test_who_logs_an_exception_tells_of_it(self):
        self.assertIsNone(caught.of_response())
        self.logger.addHandler(logging.NullHandler())
        self.log()
        self.assertIsNone(caught.of_response())
        error = self.log(exc_info=True)
        self.assertIs(caught.of_response(), error)
        self.assertFalse(caught.is_told(error, "secret reason", ""))

    def test_what_a_handler_has_written_is_told(self):
        self.logger.addHandler(logging.StreamHandler(io.StringIO()))
        error = self.log(exc_info=True)
        self.assertTrue(caught.is_told(error, "secret reason", ""))
        self.assertFalse(caught.is_told(KeyError("x"), "'x'", "Traceback (most recent call last):\nValueError: y"))
        self.assertTrue(caught.is_told(KeyError("x"), "'x'", "Traceback (most recent call last):\nKeyError: 'x'"))

    def test_an_exception_that_is_being_handled_is_what_a_response_is_about(self):
        try:
            self.raise_one()
        except ValueError as error:
            self.assertIs(caught.of_response(), error)
        self.assertIsNone(caught.of_response())

    def test_what_the_app_logs_itself_it_answers_for_on_purpose(self):
        self.logger.addHandler(logging.StreamHandler(io.StringIO()))
        source = "def view():\n    try:\n        fail()\n    except ValueError as e:\n        logger.exception('x')\n        return e\n"
        error = run(source, "/0/shop.py", fail=self.raise_one, logger=self.logger)["view"]()
        self.assertIsNone(caught.of_response())
        # It is in the log, should a framework tell of it besides.
        caught.note(error)
        self.assertTrue(caught.is_told(error, "secret reason", ""))
        caught.begin()
        error = run(source, "/1/framework.py", fail=self.raise_one, logger=self.logger)["view"]()
        self.assertIs(caught.of_response(), error)
        caught.begin()
        self.assertIsNone(caught.of_response())

    def test_what_an_error_handler_answers_for_is_known_and_a_response_that_is_raised_is_no_failure(self):
        class Http(Exception):
            pass

        class Flask:
            def handle_user_exception(self, error):
                return "sorry", 503

        with mock.patch.dict(sys.modules, {"werkzeug": mock.Mock(), "werkzeug.exceptions": types.SimpleNamespace(HTTPException=Http)}):
            caught.watch_handlers(Flask)
        self.assertEqual(Flask().handle_user_exception(Http()), ("sorry", 503))
        self.assertIsNone(caught.of_response())
        error = ValueError("secret reason")
        self.assertEqual(Flask().handle_user_exception(error), ("sorry", 503))
        self.assertIs(caught.of_response(), error)

    def test_a_factory_of_the_apps_own_goes_on(self):
        made = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *arguments, **keywords: made(*arguments, **keywords))
        self.logger.addHandler(logging.NullHandler())
        self.assertIs(self.log(exc_info=True), caught.of_response())


class Rule:
    def __init__(self, rule, endpoint, subdomain="", host=None):
        self.rule, self.endpoint, self.subdomain, self.host = rule, endpoint, subdomain, host


class Flasks(unittest.TestCase):
    """With a framework that has what is asked of Flask."""

    def setUp(self):
        names = run(
            "class Owner:\n"
            "    def send_static_file(self, filename): pass\n"
            "class Flask(Owner):\n"
            "    def __call__(self, environ, start_response): pass\n"
            "    def wsgi_app(self, environ, start_response): pass\n"
            "    def full_dispatch_request(self): pass\n"
            "    def preprocess_request(self): pass\n"
            "    def dispatch_request(self): pass\n"
            "view = lambda **keywords: None\n",
            "/1/flask/app.py",
        )
        self.owner, self.flask, self.view = names["Owner"], names["Flask"], names["view"]
        module = types.SimpleNamespace(Flask=self.flask, __file__="/1/flask/__init__.py", got_request_exception=mock.Mock())
        self.module = module
        patches = [
            mock.patch.dict(sys.modules, {"flask": module}),
            mock.patch.object(os, "walk", lambda folder: [(folder, [], ["a.css"])] if "empty" not in folder else []),
        ]
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)

    def app(self, rules, folder="/0/static", blueprints=()):
        app = self.flask()
        app.static_folder, app.config, app.extensions = folder, {}, {}
        app.before_request_funcs, app.after_request_funcs, app.url_value_preprocessors = {}, {}, {}
        app.blueprints = {}
        for name, place in blueprints:
            app.blueprints[name] = self.owner()
            app.blueprints[name].static_folder = place
        app.url_map = mock.Mock(iter_rules=lambda: rules)
        app.view_functions = {rule.endpoint: self.view for rule in rules}
        return app

    def report(self, app):
        report = {}
        flask.finish(app, report)
        return report

    USUAL = Rule("/static/<path:filename>", "static")

    def test_static_folders_of_an_app_and_its_blueprints_are_found(self):
        rules = [self.USUAL, Rule("/admin/files/<path:filename>", "admin.static"), Rule("/", "index")]
        app = self.app(rules, blueprints=[("admin", "/1/flask_admin/static")])
        self.assertEqual(self.report(app)["static"], {"/static/": "0/static", "/admin/files/": "1/flask_admin/static"})

    def test_what_is_not_plainly_a_folder_stays_with_the_app(self):
        for rule in [
            Rule("/<path:filename>", "static"),
            Rule("/<lang>/static/<path:filename>", "static"),
            Rule("/static/<path:filename>", "static", host="cdn.example"),
            Rule("/static/<path:filename>", "static", subdomain="cdn"),
        ]:
            self.assertNotIn("static", self.report(self.app([rule])), rule.rule)
        for folder in ["/srv/static", "/0/empty"]:
            self.assertNotIn("static", self.report(self.app([self.USUAL], folder)), folder)
        self.assertNotIn("static", self.report(self.app([self.USUAL, Rule("/static/special.css", "special")])))
        # Somebody's own way of serving them, such as behind a login.
        app = self.app([self.USUAL])
        app.view_functions["static"] = run("def view(filename): pass\n")["view"]
        self.assertNotIn("static", self.report(app))
        self.flask = type("Own", (self.flask,), {"send_static_file": run("def send(self, filename): pass\n")["send"]})
        self.assertNotIn("static", self.report(self.app([self.USUAL])))

    def test_middleware_that_changes_no_paths_is_seen_through(self):
        def middleware(kind, **attributes):
            module, _, name = kind.rpartition(".")
            made = type(name, (), {"__module__": module})()
            vars(made).update(attributes)
            return made

        app = self.app([self.USUAL])
        app.wsgi_app = middleware("werkzeug.middleware.proxy_fix.ProxyFix", app=app.wsgi_app)
        self.assertIn("static", self.report(app))
        other = self.app([self.USUAL])
        other.wsgi_app = middleware("shop.Login", app=other.wsgi_app)
        self.assertNotIn("static", self.report(other))
        dispatcher = "werkzeug.middleware.dispatcher.DispatcherMiddleware"
        both = middleware(dispatcher, app=self.app([self.USUAL]), mounts={"/two": self.app([self.USUAL], "/0/two")})
        self.assertEqual(self.report(both)["static"], {"/static/": "0/static", "/two/static/": "0/two"})
        hidden = middleware(dispatcher, app=self.app([self.USUAL]), mounts={"/static": mock.Mock()})
        self.assertNotIn("static", self.report(hidden))

    def assert_kept(self, app, what, place=(None, 0)):
        """The app serves its files itself, and the build says why."""
        report = self.report(app)
        self.assertNotIn("static", report, what)
        [[file, line, said, static]] = report["kept"]
        self.assertEqual(((file, line), static), (place, {"/static/": "0/static"}), said)
        self.assertIn(what, said)

    def test_files_are_the_apps_where_a_function_may_refuse_them(self):
        def hook(function):
            app = self.app([self.USUAL])
            app.before_request_funcs = {None: [function]}
            return app

        # Whatever it does: a helper that it calls may abort.
        plain = run("\ndef check(): helper()\n")["check"]
        self.assert_kept(hook(plain), "check() is called before each", ("/0/shop.py", 2))
        package = run("def decorated(*args): pass\ndef force(self): pass\n", "/1/flask_login/utils.py")
        self.assert_kept(hook(functools.wraps(plain)(package["decorated"])), "check() is called", ("/0/shop.py", 2))
        self.assert_kept(hook(functools.partial(plain)), "check() is called", ("/0/shop.py", 2))
        self.assert_kept(hook(run("check = lambda: abort(401)\n")["check"]), "<lambda>() is called", ("/0/shop.py", 1))
        self.assert_kept(hook(package["force"]), "force is called before each")
        self.assert_kept(hook(mock.Mock(spec=[])), "Mock is called before each")
        app = self.app([self.USUAL])
        app.url_value_preprocessors = {None: [plain]}
        self.assert_kept(app, "check() is called before each", ("/0/shop.py", 2))
        self.module.request_started = types.SimpleNamespace(receivers={1: plain})
        self.assert_kept(self.app([self.USUAL]), "request_started has receivers")

    def test_files_are_the_apps_where_each_host_has_rules_of_its_own(self):
        for other in [Rule("/<path:page>", "page", subdomain="<who>"), Rule("/", "page", host="a.example")]:
            self.assert_kept(self.app([self.USUAL, other]), "rules for single subdomains or hosts")

    def test_functions_before_requests_count_where_flask_calls_them(self):
        rules = [self.USUAL, Rule("/a/s/<path:filename>", "admin.static"), Rule("/b/s/<path:filename>", "admin.sub.static")]
        check = run("def check(): pass\n")["check"]
        for scope, expected in [
            (None, []),
            ("admin", ["/static/"]),
            ("admin.sub", ["/a/s/", "/static/"]),
            ("other", ["/a/s/", "/b/s/", "/static/"]),
        ]:
            app = self.app(rules, blueprints=[("admin", "/0/a"), ("admin.sub", "/0/b")])
            app.before_request_funcs = {scope: [check]}
            self.assertEqual(sorted(self.report(app).get("static", {})), expected, scope)

    def test_what_is_known_to_let_everybody_read_does_not_count(self):
        source = "class CSRFProtect:\n    def init_app(self):\n        def csrf_protect(): pass\n        return csrf_protect\n"
        for file, is_static in [("/1/flask_wtf/csrf.py", True), ("/0/flask_wtf.py", False)]:
            app = self.app([self.USUAL])
            app.before_request_funcs = {None: [run(source, file)["CSRFProtect"]().init_app()]}
            self.assertEqual("static" in self.report(app), is_static, file)

    def test_who_only_reads_a_secret_refuses_nothing(self):
        for number, (body, is_static) in enumerate([
            ("app.secret_key = app.secret_key or os.environ['SECRET_KEY']", True),
            ('app.secret_key = app.secret_key or os.environ.get("SECRET_KEY") or os.urandom(32)', True),
            ("app.secret_key = os.getenv('SECRET_KEY')", True),
            ("app.secret_key = app.secret_key or os.environ['SECRET_KEY']\n    check()", False),
            ("app.secret_key = app.secret_key or check()", False),
            ("other.secret_key = os.environ['SECRET_KEY']", False),
            ("app.secret_key = os.environ[check()]", False),
            ("check()", False),
        ]):
            source, file = f"def read_secret():\n    {body}\n", f"/0/secret{number}.py"
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            self.addCleanup(linecache.cache.pop, file)
            app = self.app([self.USUAL])
            read = run(source, file, os=os, app=app, other=self.app([]))["read_secret"]
            app.before_request_funcs = {None: [read]}
            self.assertEqual("static" in self.report(app), is_static, body)
            # What is around it is not this function.
            app.before_request_funcs = {None: [functools.partial(read)]}
            self.assertNotIn("static", self.report(app), body)
            app.before_request_funcs = {None: [run(source, file, os=mock.Mock(), app=app)["read_secret"]]}
            self.assertNotIn("static", self.report(app), body)

    def test_files_are_the_apps_where_a_class_of_its_own_stands_in_the_way(self):
        flask = self.flask
        for name in ["__call__", "wsgi_app", "full_dispatch_request", "preprocess_request", "dispatch_request", "send_static_file"]:
            own = run("\n\ndef own(self, *args): pass\n")["own"]
            self.flask = type("Own", (flask,), {name: own})
            self.assert_kept(self.app([self.USUAL]), "own() is not Flask's", ("/0/shop.py", 3))
            self.flask = flask
            if name != "wsgi_app":
                app = self.app([self.USUAL])
                setattr(app, name, own)
                self.assert_kept(app, f"own() is {name} of the app", ("/0/shop.py", 3))

    def test_files_are_the_apps_where_others_are_around_it(self):
        class Login:
            def __init__(self, app):
                self.app = app

        app = self.app([self.USUAL])
        self.assert_kept(Login(app), "Login is around the app")
        self.assert_kept(Login(app.wsgi_app), "Login is around the app")
        app.wsgi_app = Login(app.wsgi_app)
        self.assert_kept(app, "Login is around the app")
        app = self.app([self.USUAL])
        app.wsgi_app = Login(app)
        self.assert_kept(app, "Login is around the app")
        app = self.app([self.USUAL])
        app.wsgi_app = lambda environ, start_response: None
        self.assert_kept(app, "<lambda> is around the app")

    def test_databases_that_settings_name_are_found(self):
        for value, path in [
            ("sqlite:///project.db", "project.db"),
            ("sqlite+pysqlite:////0/project.db?timeout=3", "/0/project.db"),
            ("/0/instance/flaskr.sqlite", "/0/instance/flaskr.sqlite"),
            ("/0/words.txt", None),
            ("sqlite:///:memory:", None),
            ("sqlite://", None),
            ("postgresql://a/b", None),
        ]:
            app = self.app([])
            app.config["DATABASE"] = value
            self.assertEqual(flask.finish(app, {})[1], [path] if path else [], value)
        # Those of SQLAlchemy's are where its engines say.
        app.extensions = {"sqlalchemy": mock.Mock()}
        app.config = {"SQLALCHEMY_DATABASE_URI": "sqlite:///project.db", "DATABASE": "/0/a.db"}
        self.assertEqual(flask.finish(app, {})[1], ["/0/a.db"])


class Databases(Folder):
    """With folders of this test's in place of those inside."""

    def setUp(self):
        super().setUp()
        self.app, self.data = self.folder / "0", self.folder / "data"
        self.app.mkdir()
        self.data.mkdir()
        here = os.getcwd()
        os.chdir(self.app)
        self.addCleanup(os.chdir, here)
        places = {"APP": str(self.app), "PACKAGES": str(self.folder / "1"), "DATA": str(self.data), "is_served": False}
        for owner, name, value in [
            *((world, name, value) for name, value in places.items()),
            (databases, "asked", set()),
            (databases, "_connected", {}),
            (databases, "kept_open", []),
        ]:
            patch = mock.patch.object(owner, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.sqlite = types.SimpleNamespace(connect=sqlite3.connect)
        databases._wrap(self.sqlite)

    def rows(self, name, *statements):
        with contextlib.closing(self.sqlite.connect(name)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
            return [row for row, in connection.execute("SELECT * FROM t")]

    def finish(self, *named):
        report = {}
        databases.finish(named, report)
        world.wake()
        databases.wake()
        return report

    MAKE = "CREATE TABLE IF NOT EXISTS t (a)"

    def test_a_database_beside_the_code_is_in_data_when_it_is_served(self):
        report = self.finish("shop.db", f"{self.app}/var/two.db", "/srv/three.db")
        self.assertEqual([what for _, _, what in report["places"]], [
            f"the database {name} would be in the app's folder, where nothing can be written when it is served: it is {self.data}/{kept} instead"
            for name, kept in [("shop.db", "shop.db"), ("var/two.db", "var-two.db")]
        ])
        self.assertTrue(report["data"])
        for name in ["shop.db", b"shop.db", self.app / "shop.db"]:
            self.rows(name, self.MAKE, "INSERT INTO t VALUES (1)")
        self.assertEqual(self.rows(f"{self.data}/shop.db"), [1, 1, 1])
        self.assertEqual(list(self.app.iterdir()), [])

    def test_what_an_import_makes_is_what_the_database_in_data_begins_with(self):
        self.rows("shop.db", self.MAKE, "INSERT INTO t VALUES ('of the import')")
        self.sqlite.connect("empty.db").close()
        report = self.finish("shop.db")
        self.assertFalse((self.app / "empty.db").exists())
        self.assertEqual((report["data"], report["begun"]), (True, ["shop.db"]))
        self.assertIn(f"{self.data}/shop.db begins as a copy of it", str(report["places"]))
        self.assertEqual(self.rows("shop.db", "INSERT INTO t VALUES (2)"), ["of the import", 2])
        # It stays, over instances and releases.
        self.assertEqual(self.rows("shop.db"), ["of the import", 2])
        self.assertEqual(sorted(path.name for path in self.data.iterdir()), ["shop.db"])
        self.assertEqual(self.rows("empty.db", self.MAKE), [])

    def test_a_database_that_travels_in_the_file_is_read_there(self):
        self.rows("shop.db", self.MAKE, "INSERT INTO t VALUES (1)")
        databases.asked.clear()
        report = self.finish("shop.db")
        self.assertNotIn("data", report)
        self.assertIn("it can be read only", str(report["places"]))
        self.assertEqual(self.rows("shop.db"), [1])
        self.assertEqual(list(self.data.iterdir()), [])

    def test_others_are_where_they_are(self):
        self.assertEqual(self.finish(":memory:", "file:x.db", "", "/srv/x.db"), {"begun": []})
        self.assertEqual(self.rows(":memory:", self.MAKE), [])
        self.assertEqual(self.rows(str(self.folder / "data/own.db"), self.MAKE), [])
        self.assertEqual(list(self.app.iterdir()), [])

    def test_who_has_no_data_is_told_how_to_have_some(self):
        self.rows("made.db", self.MAKE)
        self.finish()
        self.data.rmdir()
        for name, said in [("shop.db", " is in the app's folder.*"), ("made.db", " is in the app's folder.*"), (f"{self.data}/own.db", ": ")]:
            with self.assertRaisesRegex(sqlite3.OperationalError, rf"{name}{said}there is no .*data = true.*grant"):
                self.sqlite.connect(name)

    def test_a_connection_that_an_import_keeps_is_opened_again(self):
        connection = self.sqlite.connect("shop.db", check_same_thread=False)
        connection.row_factory = sqlite3.Row
        cursor = connection.cursor()
        cursor.execute(self.MAKE)
        cursor.execute("INSERT INTO t VALUES ('not committed')")
        memory = self.sqlite.connect(":memory:")
        memory.execute(self.MAKE)
        databases.finish([], {})
        with self.assertRaisesRegex(sqlite3.ProgrammingError, "closed"):
            connection.execute("SELECT 1")
        world.wake()
        databases.wake()
        self.assertEqual([row["a"] for row in connection.execute("SELECT * FROM t")], ["not committed"])
        self.assertEqual([row["a"] for row in cursor.execute("SELECT * FROM t")], ["not committed"])
        connection.execute("INSERT INTO t VALUES (2)")
        connection.commit()
        self.assertEqual(self.rows(f"{self.data}/shop.db"), ["not committed", 2])
        self.assertEqual(list(memory.execute("SELECT * FROM t")), [])
        connection.close()

    def test_what_engines_of_sqlalchemys_are_for_is_known_and_their_connections_are_closed(self):
        class Engine:
            def __init__(self, dialect, database):
                self.dialect, self.url = types.SimpleNamespace(name=dialect), types.SimpleNamespace(database=database)
                self.dispose = mock.Mock()

        engines = [Engine("sqlite", "shop.db"), Engine("sqlite", None), Engine("sqlite", ":memory:"), Engine("postgresql", "shop")]
        with mock.patch.dict(sys.modules, {"sqlalchemy.engine": types.SimpleNamespace(Engine=Engine)}):
            report = self.finish()
        self.assertEqual([engine.dispose.called for engine in engines], [True, False, False, False])
        self.assertEqual(len(report["places"]), 1)
        self.assertTrue(report["data"])


class Djangos(Folder):
    def notes(self, databases, source, media=""):
        module = types.ModuleType("mysite.settings")
        module.__file__, module.DATABASES, module.MEDIA_ROOT = "/0/mysite/settings.py", databases, media
        settings = types.SimpleNamespace(DATABASES=databases, MEDIA_ROOT=media, SETTINGS_MODULE="mysite.settings")
        with (
            mock.patch.dict(sys.modules, {"mysite.settings": module}),
            mock.patch("builtins.open", mock.mock_open(read_data=source.encode())),
            mock.patch.object(os, "getcwd", lambda: "/0"),
        ):
            return django._move_databases(settings) + django._read_only_media(settings)

    SOURCE = 'DEBUG = True\nDATABASES = {\n    "default": {\n        "ENGINE": "x",\n        "NAME": BASE_DIR / "db.sqlite3",\n    }\n}\nMEDIA_ROOT = 1\n'

    def test_a_database_beside_the_code_is_kept_in_data_and_the_line_is_named(self):
        for name, place in [
            (Path("/0/db.sqlite3"), "/data/db.sqlite3"),
            ("db.sqlite3", "/data/db.sqlite3"),
            ("/db.sqlite3", "/data/db.sqlite3"),
            ("/0/var/site.db", "/data/var-site.db"),
        ]:
            databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}}
            [[file, line, what]] = self.notes(databases, self.SOURCE)
            self.assertEqual((file, line, databases["default"]["NAME"]), ("/0/mysite/settings.py", 5, place), name)
            self.assertIn(f"it is {place} instead", what)

    def test_other_databases_are_left_alone(self):
        for engine, name in [
            ("sqlite3", "/data/db.sqlite3"),
            ("sqlite3", ":memory:"),
            ("sqlite3", "/srv/shared/db.sqlite3"),
            ("postgresql", "shop"),
            ("sqlite3", ""),
        ]:
            databases = {"default": {"ENGINE": f"django.db.backends.{engine}", "NAME": name}}
            self.assertEqual((self.notes(databases, self.SOURCE), databases["default"]["NAME"]), ([], name))

    def test_a_database_that_an_import_has_connected_to_is_left_to_who_connects(self):
        settings = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/0/db.sqlite3"}}
        with mock.patch.object(databases, "asked", {"/0/db.sqlite3"}), mock.patch.object(os.path, "exists", lambda path: True):
            self.assertEqual(self.notes(settings, self.SOURCE), [])

    def test_a_database_that_travels_in_the_file_is_read_only(self):
        databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/0/db.sqlite3"}}
        with mock.patch.object(os.path, "exists", lambda path: True):
            [[_, _, what]] = self.notes(databases, self.SOURCE)
        self.assertIn("can be read only", what)
        self.assertEqual(databases["default"]["NAME"], "/0/db.sqlite3")

    def test_uploads_beside_the_code_are_said(self):
        [[file, line, what]] = self.notes({}, self.SOURCE, "/0/media/")
        self.assertEqual(line, 8)
        self.assertIn("/data/media", what)

if __name__ == "__main__":
    unittest.main()
