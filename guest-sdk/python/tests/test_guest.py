"""What runs inside with the app, as far as it needs nothing of the sandbox: python3 -m unittest discover guest-sdk/python/tests"""

import getpass
import importlib
import os
import random
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from wasgi_guest import failure, imports, servers, targets
from wasgi_guest.watch import Watch


def run(source, file="/0/shop.py", **names):
    """A module of the app's."""
    names["__name__"] = "shop"
    exec(compile(source, file, "exec"), names)
    return names


class Watching(unittest.TestCase):
    def watch(self, source, **names):
        with mock.patch.dict(os.environ, {"KEY": "x", "OTHER": "y"}), Watch(lambda file: file.startswith("/0/")) as watch:
            run(source, os=os, random=random, **names)
        return watch

    def test_what_an_import_reads_and_draws_is_known_by_its_line(self):
        watch = self.watch("a = 1\nkey = os.environ['KEY']\nother = os.environ.get('OTHER')\n")
        self.assertEqual(watch.variables, {("/0/shop.py", 2): {"KEY"}, ("/0/shop.py", 3): {"OTHER"}})
        watch = self.watch("token = os.urandom(8)\nnumber = random.randint(1, 6)\nchance = random.SystemRandom().random()\n")
        self.assertEqual(sorted(line for _, line in watch.draws), [1, 2, 3])
        self.assertIn("random.randint", watch.draws["/0/shop.py", 2])

    def test_who_copies_the_environment_wants_none_of_it_by_name(self):
        for source in ["dict(os.environ)", "os.environ.copy()", "{**os.environ}", "[k + v for k, v in os.environ.items()]"]:
            watch = self.watch(f"copy = {source}\nkey = os.environ['KEY']\n")
            self.assertEqual((watch.copies, watch.variables), ({("/0/shop.py", 1)}, {("/0/shop.py", 2): {"KEY"}}), source)
        watch = self.watch("found = [os.environ[name] for name in os.environ if name == 'KEY']\n")
        self.assertEqual((watch.copies, watch.variables), (set(), {("/0/shop.py", 1): {"KEY"}}))

    def test_what_the_standard_library_reads_for_itself_is_not_the_apps(self):
        names = run("import os\ndef getnode():\n    return os.environ.get('KEY'), dict(os.environ), os.urandom(6)\n", "/python/uuid.py")
        watch = self.watch("node = getnode()\nkey = os.getenv('KEY')\n", getnode=names["getnode"])
        self.assertEqual((watch.variables, watch.copies), ({("/0/shop.py", 2): {"KEY"}}, set()))
        self.assertEqual(watch.draws, {("/0/shop.py", 1): {"os.urandom"}})
        names = run("import os\ndef str_(name):\n    return os.environ.get(name)\n", "/1/environ/environ.py")
        watch = self.watch("key = str_('KEY')\n", str_=names["str_"])
        self.assertEqual(watch.variables, {("/0/shop.py", 1): {"KEY"}})

    def test_what_packages_do_is_theirs(self):
        package = run("import os, random\ndef start():\n    return dict(os.environ), os.environ['KEY'], random.random()\n", "/1/pkg/x.py")
        watch = self.watch("start()\n", start=package["start"])
        self.assertEqual((watch.variables, watch.copies, watch.draws), ({}, set(), {}))


class Targets(unittest.TestCase):
    def load(self, source, expression=None):
        module = types.ModuleType("shop")
        exec(source, module.__dict__)
        with mock.patch.dict(sys.modules, {"shop": module}):
            return targets.load("shop", expression)

    def test_an_asgi_application_is_told_from_one_of_wsgi(self):
        for source in [
            "async def app(scope, receive, send): pass",
            "class Star:\n    async def __call__(self, scope, receive, send): pass\napp = Star()",
        ]:
            for expression in ["app", None]:
                with self.assertRaisesRegex(targets.TargetError, "ASGI application.*wsgi.py"):
                    self.load(source, expression)
        self.assertTrue(callable(self.load("def app(environ, start_response): return []")))
        self.assertTrue(callable(self.load("class App:\n    def __call__(self, environ, start_response): return []\napp = App()")))


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()


class Imports(Folder):
    def test_what_is_put_into_a_package_is_there_whenever_it_is_imported(self):
        (self.folder / "pkg").mkdir()
        (self.folder / "pkg/__init__.py").write_text("from .inner import serve\n")
        (self.folder / "pkg/inner.py").write_text("def serve(): return 'its own'\n")
        self.addCleanup(sys.meta_path.__setitem__, slice(None), list(sys.meta_path))
        with mock.patch.object(sys, "path", [str(self.folder), *sys.path]), mock.patch.dict(sys.modules):
            with mock.patch.dict(imports._wanted):
                imports.after("pkg.inner", lambda module: setattr(module, "serve", lambda: "ours"))
                imports.after("not.there", lambda module: self.fail())
                self.assertEqual(importlib.import_module("pkg").serve(), "ours")
                with self.assertRaises(ImportError):
                    importlib.import_module("not.there")


class Commands(unittest.TestCase):
    def test_who_asks_for_the_user_is_told_as_ever_that_there_is_none(self):
        wit = {"wit_world": types.ModuleType("wit_world"), "wit_world.imports": mock.Mock()}
        nobody = mock.patch.object(getpass, "getuser", mock.Mock(side_effect=OSError("No username set in the environment")))
        with mock.patch.dict(sys.modules, wit), mock.patch.dict(os.environ), nobody:
            os.environ.pop("DJANGO_SETTINGS_MODULE", None)
            command = importlib.import_module("wasgi_guest.command")
            self.addCleanup(sys.modules.pop, "wasgi_guest.command", None)
            with self.assertRaises(SystemExit):
                command._manage(None, [])
            for kind in (OSError, KeyError):
                with self.assertRaises(kind):
                    getpass.getuser()


# What a program has of Bottle: `app` is a stack there, which gives the application when it is called.
BOTTLE = """
__all__ = ["app", "run"]
class AppStack(list):
    def __call__(self):
        return self[-1]
def made(environ, start_response): return []
app = AppStack([made])
def run(app=None, server="wsgiref", host="127.0.0.1", port=8080, interval=1, reloader=False, **keywords):
    if reloader:
        raise OSError("wasi does not support processes.")
    from wsgiref.simple_server import make_server
    make_server(host, port, app or made).serve_forever()
"""


class Programs(Folder):
    """Modules that serve by themselves when they are imported."""

    def setUp(self):
        super().setUp()
        from wsgiref import handlers, simple_server

        for patch in [
            mock.patch.object(sys, "path", [str(self.folder), *sys.path]),
            mock.patch.object(sys, "meta_path", list(sys.meta_path)),
            mock.patch.dict(sys.modules),
            mock.patch.object(simple_server, "make_server", None),
            mock.patch.object(handlers.BaseCGIHandler, "run", None),
            mock.patch.multiple(servers, registered=None, notes=[]),
        ]:
            patch.start()
            self.addCleanup(patch.stop)
        servers.install()
        for name, source in {
            "werkzeug/__init__.py": "",
            "werkzeug/serving.py": "def run_simple(hostname, port, application, use_reloader=False):\n    raise SystemError\n",
            "bottle.py": BOTTLE,
            "waitress/__init__.py": "def serve(app, **keywords):\n    raise SystemError\n",
        }.items():
            self.write(name, source)

    def write(self, name, source):
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(source)

    def test_what_a_program_would_serve_is_its_application_whatever_server_it_starts(self):
        for number, start in enumerate([
            "from wsgiref.simple_server import make_server\nmake_server('', 8000, made).serve_forever()",
            "from werkzeug.serving import run_simple\nrun_simple('', 5000, made, use_reloader=True)",
            "import waitress\nwaitress.serve(made, port=8080)",
            "if __name__ == '__main__':\n    from waitress import serve\n    serve(made)",
        ]):
            name = f"pkg{number}.program"
            source = "def made(environ, start_response): return []\nkept = 1\n"
            self.write(f"pkg{number}/program.py", f"{source}{start}\nnever = 1\n")
            servers.registered = None
            found = targets.load(name, None)
            self.assertEqual((found.__name__, len(servers.notes)), ("made", number + 1), start)
            self.assertEqual(targets.load(name, "made").__name__, "made")
            # Who imports it later finds what there is, and starts nothing again.
            later = importlib.import_module(name)
            self.assertEqual((later.kept, hasattr(later, "never")), (1, "__main__" in start), start)
            self.assertIs(sys.modules[f"pkg{number}"].program, later)

    def test_what_a_program_has_given_to_a_server_goes_before_what_it_has_by_name(self):
        for number, start in enumerate([
            "run(host='localhost', port=8080)",
            "run(reloader=True)",
            "run(None, 'wsgiref', '', 8080, 1, True)",
            "if __name__ == '__main__':\n    run(reloader=True, debug=True)",
        ]):
            self.write(f"site{number}.py", f"from bottle import *\n{start}\n")
            servers.registered = None
            self.assertEqual(targets.load(f"site{number}", None).__name__, "made", start)
        self.write("factory.py", "def app(): pass\n")
        servers.registered = None
        with self.assertRaisesRegex(targets.TargetError, r"write factory:app\(\)"):
            targets.load("factory", None)

    def test_a_package_is_run_as_a_program_by_its_main(self):
        self.write("pk/__init__.py", "")
        self.write("pk/site.py", "def made(environ, start_response): return []\n")
        self.write("pk/__main__.py", "from .site import made\nfrom waitress import serve\nif __name__ == '__main__':\n    serve(made)\n")
        with mock.patch.dict(sys.modules):
            self.assertEqual(targets.load("pk", None).__name__, "made")
        self.write("empty/__init__.py", "")
        servers.registered = None
        with self.assertRaisesRegex(targets.TargetError, "serves nothing"):
            targets.load("empty", None)

    def test_a_module_that_fails_is_not_there(self):
        self.write("broken.py", "1 / 0\n")
        with self.assertRaises(ZeroDivisionError):
            targets.load("broken", None)
        self.assertNotIn("broken", sys.modules)
        with self.assertRaisesRegex(ModuleNotFoundError, "nothing"):
            targets.load("nothing.at.all", None)


class Failures(unittest.TestCase):
    def described(self, source, **names):
        try:
            run(source, **names)
        except BaseException as error:
            return failure.described(error)

    def test_only_frames_of_the_app_and_its_packages_are_shown(self):
        package = run("import os\ndef read():\n    return os.environ['NONE_SUCH']\n", "/1/pkg/settings.py")
        text = self.described("a = 1\nread()\n", read=package["read"])["traceback"]
        files = [line.strip().split(",")[0] for line in text.splitlines() if line.strip().startswith("File")]
        self.assertEqual(files, ['File "/0/shop.py"', 'File "/1/pkg/settings.py"'])
        self.assertTrue(text.startswith("Traceback") and text.endswith("KeyError: 'NONE_SUCH'\n"), text)

    def test_of_a_syntax_error_its_line_is_shown(self):
        described = self.described("def (:\n")
        self.assertEqual(described["frames"][-1], ["/0/shop.py", 1])
        self.assertTrue(described["traceback"].startswith('  File "/0/shop.py", line 1\n'), described["traceback"])
        self.assertNotIn("Traceback", described["traceback"])

    def test_causes_are_shown_the_same_way(self):
        text = self.described("import json\ntry:\n    json.loads('{')\nexcept ValueError as e:\n    raise KeyError('x') from e\n")
        self.assertEqual(text["traceback"].count("File "), 2, text["traceback"])
        self.assertIn("JSONDecodeError", text["traceback"])



if __name__ == "__main__":
    unittest.main()
