"""The parts of `wasgi build` that need no component: python3 -m unittest discover guest-sdk/python/tests"""

import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from wasgi import build, bundle, cli, explain, keyvalue, record, sources, target, watch
from wasgi.errors import BuildError
from wasgi.stage import Stage


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()

    def write(self, name, text=""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Targets(Folder):
    def parse(self, text):
        return target.parse(text, self.folder)

    def test_a_target_is_what_gunicorn_takes(self):
        for text, module, expression, name in [
            ("shop", "shop", None, "shop"),
            ("shop:app", "shop", "app", "shop"),
            ("shop.wsgi:application", "shop.wsgi", "application", "shop"),
            ('shop:create_app("a:b")', "shop", 'create_app("a:b")', "shop"),
            ("./sub/hello.py", "sub.hello", None, "hello"),
            ("wsgi:app", "wsgi", "app", "my-shop"),
            ("config.wsgi", "config.wsgi", None, "my-shop"),
        ]:
            found = self.parse(text)
            self.assertEqual((found.module, found.expression), (module, expression), text)
            self.assertEqual(found.name(Path("/home/me/My Shop")), name, text)

    def test_what_is_no_target_says_so(self):
        for text in ["", ":app", "a-b:app", "1a", "../x.py"]:
            with self.assertRaisesRegex(BuildError, "no target"):
                self.parse(text)

    def test_a_django_project_says_itself_what_it_serves(self):
        with self.assertRaisesRegex(BuildError, "no manage.py"):
            self.parse(None)
        self.write(
            "manage.py", 'import os\ndef main():\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "my.settings")\n'
        )
        self.assertEqual(self.parse(None), target.Target("my.wsgi", "application", "my.settings"))
        self.write("my/settings.py", 'WSGI_APPLICATION = "other.place.app"\n')
        self.assertEqual(self.parse(None), target.Target("other.place", "app", "my.settings"))
        self.assertEqual(self.parse("x:app").settings, "my.settings")
        # Settings that are a package, beside what startproject has made.
        self.write("manage.py", 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.dev")\n')
        self.write("shop/settings/dev.py", "from .base import *\n")
        self.write("shop/settings/base.py", 'WSGI_APPLICATION = "shop.wsgi.application"\n')
        self.write("shop/wsgi.py")
        self.assertEqual(self.parse(None), target.Target("shop.wsgi", "application", "shop.settings.dev"))
        # What serves has other settings than what is run by hand.
        self.write("shop/wsgi.py", 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.prod")\n')
        for text, expression in [(None, "application"), ("shop.wsgi:app", "app")]:
            self.assertEqual(self.parse(text), target.Target("shop.wsgi", expression, "shop.settings.prod"))
        self.write("manage.py", "def (:\n")
        with self.assertRaises(BuildError) as raised:
            self.parse(None)
        # As all files are named: from where one is.
        self.assertTrue(str(raised.exception).startswith(f"{os.path.relpath(self.folder)}/manage.py:1: "), raised.exception)


class Rebuilds(Folder):
    def options(self, *arguments):
        return cli.parser().parse_args(["build", "--chdir", str(self.folder / "app"), *arguments])

    def test_what_an_app_is_made_of_tells_whether_to_build_it_again(self):
        requirements = self.write("requirements.txt", "flask")
        self.write("app/shop.py", "a = 1\n")
        options = self.options("--requirements", str(requirements), "shop:app")
        seen = [sources.state(options)]
        self.write("app/shop.wasm")
        self.write("app/.git/HEAD")
        self.write("app/.shop.py.swp")
        self.assertEqual(sources.state(options), seen[0], "none of it is part of the app")
        for name, text in [("app/shop.py", "a = 12\n"), ("app/templates/new.html", ""), ("requirements.txt", "django")]:
            self.write(name, text)
            seen.append(sources.state(options))
        self.assertEqual(len(set(seen)), 4)

    def test_requirements_are_the_same_by_whatever_path_and_count_with_what_they_include(self):
        requirements = self.write("requirements/all.txt", "-r base.txt\n--constraint=c.txt\n-r all.txt\n-r none.txt\n")
        self.write("requirements/base.txt", "flask")
        self.write("requirements/c.txt")
        self.write("app/shop.py")
        absolute = self.options("--requirements", str(requirements), "shop:app")
        here = self.options("--requirements", os.path.relpath(requirements), "shop:app")
        seen = [sources.state(absolute)]
        self.assertEqual(sources.state(here), seen[0])
        for name in ["base.txt", "c.txt"]:
            self.write(f"requirements/{name}", "django")
            seen.append(sources.state(here))
        self.assertEqual(len(set(seen)), 3)

    def test_what_the_environment_refers_to_counts(self):
        self.write("app/shop.py")
        self.write("library/mine.py", "a = 1")
        self.write("v/lib/python3.11/site-packages/mine.pth", f"{self.folder}/library\n")
        with mock.patch.dict(os.environ, {"VIRTUAL_ENV": str(self.folder / "v")}):
            before = sources.state(self.options())
            self.write("library/mine.py", "a = 12")
            self.assertNotEqual(sources.state(self.options()), before)

    def test_watching_goes_on_where_something_goes_meanwhile(self):
        options = self.options("shop:app")
        options.built = None
        looks = iter([FileNotFoundError, "one", PermissionError, "two", "two"])
        ends = iter([False, False, True])
        with (
            mock.patch.object(sources, "state", mock.Mock(side_effect=looks)),
            mock.patch.object(watch, "_has_ended", lambda: next(ends)),
            mock.patch.object(watch, "_build") as built,
            mock.patch.object(watch.time, "sleep"),
        ):
            watch.run(options)
        built.assert_called_once()

    def test_a_record_says_how_to_make_a_file_again_and_is_for_nobody_else(self):
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(self.folder / "cache")}):
            for number in range(103):
                record.keep(b"%d" % number, self.options("-e", "KEY=x", "--warm", "/a", "shop:app"), "the state")
        kept = list((self.folder / "cache/wasgi/builds").iterdir())
        self.assertEqual(len(kept), 100)
        self.assertEqual({path.stat().st_mode & 0o777 for path in [kept[0].parent, *kept]}, {0o700, 0o600})
        found = json.loads(kept[0].read_text())
        self.assertEqual((found["built"], found["folder"]), ("the state", os.getcwd()))
        again = cli.parser().parse_args(found["command"][4:] + ["--built", "x", "--output", "y"])
        self.assertTrue(again.watch and again.events)
        self.assertEqual((again.target, again.env, again.chdir), ("shop:app", ["KEY=x"], self.folder / "app"))
        self.assertEqual(again.warm, ["/a"])


class Bundles(Folder):
    def test_a_section_is_one_of_webassembly(self):
        self.assertEqual(bundle.section("ab", b"xyz"), b"\0\x06\x02abxyz")
        long = bundle.section("n", b"x" * 200)
        self.assertEqual(long[:4], b"\0\xca\x01\x01")

    def test_an_archive_has_files_under_their_names_in_the_guest(self):
        self.write("app/a.py", "a = 1\n")
        self.write("app/__pycache__/a.pyc")
        self.assertEqual([path.name for path in bundle.files(self.folder / "app")], ["a.py"])
        (self.folder / "app/instance").mkdir()
        self.write("library/python/os.py")
        self.write("library/python/test/test_os.py")
        library = self.folder / "library.tar"
        with tarfile.open(library, "w") as tar:
            tar.add(self.folder / "library/python", arcname="python")
        packed = bundle.archive({"0": self.folder / "app"}, library)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as tar:
            self.assertEqual(sorted(tar.getnames()), ["0/a.py", "0/instance", "python/os.py"])
            self.assertEqual(tar.extractfile("0/a.py").read(), b"a = 1\n")


class Outputs(Folder):
    def test_the_file_goes_where_it_is_told(self):
        def output(text):
            return build._output(text, "shop")

        self.assertEqual(output(None), Path("shop.wasm"))
        self.assertEqual(output(f"{self.folder}/x.wasm"), self.folder / "x.wasm")
        self.assertEqual(output(str(self.folder)), self.folder / "shop.wasm")
        self.assertEqual(output(f"{self.folder}/apps/"), self.folder / "apps/shop.wasm")
        self.assertTrue((self.folder / "apps").is_dir())
        with self.assertRaisesRegex(BuildError, "no folder"):
            output(f"{self.folder}/none/apps/")


class Hosts(Folder):
    def program(self, name, text="\x7fELF"):
        path = self.write(name, text)
        path.chmod(0o755)
        return path

    def test_the_host_is_found_behind_the_scripts_of_environments(self):
        script = self.program("venv/wasgi", "#!python")
        self.program("other/wasgi", "#!python")
        self.write("text/wasgi", "\x7fELF")
        folders = [self.folder / name for name in ("venv", "other", "text", "none", "host")]
        path = os.pathsep.join(["", *map(str, folders)])
        self.assertIsNone(cli.host_on_path(path, str(script)))
        host = self.program("host/wasgi")
        self.assertEqual(cli.host_on_path(path, str(script)), str(host))
        self.assertIsNone(cli.host_on_path(path, str(host)), "it never starts itself")


class Copies(unittest.TestCase):
    def test_the_contract_is_the_one_of_the_repository(self):
        sdk = Path(__file__).parent.parent
        ours = sdk / "src/wasgi/wit/deps/gateway/wasgi.wit"
        self.assertEqual(ours.read_bytes(), (sdk / "../../wit/wasgi.wit").read_bytes())

    def test_the_stores_are_those_of_the_repository(self):
        sdk = Path(__file__).parent.parent
        ours = sdk / "src/wasgi/wit/deps/keyvalue/keyvalue.wit"
        theirs = sdk / "../../wit/deps/keyvalue-draft2/keyvalue.wit"
        self.assertEqual(ours.read_bytes(), theirs.read_bytes())


class Keyvalue(unittest.TestCase):
    def test_outside_of_the_sandbox_a_store_is_a_dictionary(self):
        store = keyvalue.open("of a test")
        self.assertIsNone(store.get("a"))
        store.set("a", "one")
        self.assertEqual((store.get("a"), store.exists("a"), store.exists("b")), (b"one", True, False))
        self.assertEqual((store.increment("n", 41), store.increment("n")), (41, 42))
        store.update("a", lambda old: old + b"!")
        store.set_many({"b": b"2", "c": "3"})
        self.assertEqual(list(store.keys()), ["a", "b", "c", "n"])
        self.assertEqual(store.get_many(["c", "d", "a"]), [("c", b"3"), ("a", b"one!")])
        store.delete_many(["a", "b", "d"])
        self.assertEqual(list(keyvalue.open("of a test").keys()), ["c", "n"])
        with self.assertRaisesRegex(keyvalue.Error, "not a number"):
            store.set("c", "x")
            store.increment("c")


class Explanations(Folder):
    def explain(self, frames=(("/0/shop.py", 3),), native=(), variables=(), **failed):
        made = Stage(Path(tempfile.mkdtemp(dir=self.folder)))
        failed = {"module": None, "traceback": "", "frames": frames} | failed
        return explain.failure({"failure": failed, "variables": variables}, made, Path.cwd(), dict(native))

    def test_a_failure_names_file_and_line_and_says_what_to_do(self):
        absent = self.explain(type="ModuleNotFoundError", message="No module named '_ssl'", module="_ssl")
        self.assertRegex(absent, r"^shop\.py:3: _ssl is not there: there is no TLS")

    def test_an_import_that_ends_without_a_word_has_used_up_the_memory(self):
        made = Stage(Path(tempfile.mkdtemp(dir=self.folder)))
        (made.guest / "report.json").write_text("")
        self.assertTrue(made.has_answered())
        self.assertIn("more memory than a sandbox has", explain.failure(made.report(), made, Path.cwd(), {}))

    def test_a_native_extension_is_named_with_its_file(self):
        frames = [("/0/shop.py", 1), ("/1/numpy/__init__.py", 9)]
        native = {"numpy._core._multiarray": "numpy/_core/_multiarray.so"}
        text = self.explain(frames, native, type="ImportError", message="", module="numpy._core._multiarray")
        self.assertEqual(
            text,
            self.explain(frames, native, type="ImportError", message=f"long.\nNo module named '{next(iter(native))}'"),
        )
        self.assertRegex(text, r"^shop\.py:1: numpy needs its native extension numpy/_core/_multiarray\.so")

        native = {"PIL._avif": "PIL/_avif.so", "PIL._imaging": "PIL/_imaging.so"}
        said = {"type": "ImportError", "message": "cannot import name '_imaging' from 'PIL' (/1/PIL/__init__.py)", "module": "PIL"}
        self.assertIn("PIL/_imaging.so", self.explain(frames, native, **said))

    def test_which_packages_do_without_their_extensions_is_what_was_seen(self):
        made = Stage(Path(tempfile.mkdtemp(dir=self.folder)))
        report = {"application": "shop.app", "warmed": [], "modules": ["shop", "markupsafe._native"]}
        native = {"markupsafe._speedups": "a.so", "bcrypt._bcrypt": "b.so", "sqlalchemy.a": "c.so", "sqlalchemy.b": "d.so"}
        said = [line for line in explain.result("x.wasm", b"", b"", made, report, native, []) if "native" in line]
        self.assertEqual([line.rpartition(": ")[2] for line in said], ["markupsafe", "bcrypt, sqlalchemy (2)"])

    def test_a_file_that_a_host_would_refuse_is_said_to_be_too_large(self):
        made = Stage(Path(tempfile.mkdtemp(dir=self.folder)))
        report = {"application": "shop.app", "warmed": [], "modules": []}
        for size, is_said in [(64 << 20, False), ((64 << 20) + 1, True)]:
            said = "".join(explain.result("x.wasm", bytes(size), b"", made, report, {}, []))
            self.assertEqual("--limit module_size=65MiB" in said, is_said, size)

    def test_what_is_missing_could_be_installed(self):
        text = self.explain(type="ModuleNotFoundError", message="No module named 'shop2'", module="shop2")
        self.assertIn("--requirements", text)

    def test_a_variable_that_is_missing_can_be_given(self):
        text = self.explain([("/0/shop.py", 3), ("/python/os.py", 9)], type="KeyError", message="'API_KEY'")
        self.assertIn("-e API_KEY=VALUE", text)
        # A package that reads it for the app has an error of its own.
        said = {"type": "ImproperlyConfigured", "message": "Set the API_KEY environment variable"}
        frames = [("/0/shop.py", 3), ("/1/environ/environ.py", 9)]
        self.assertIn("-e API_KEY=VALUE", self.explain(frames, variables=[["/0/shop.py", 3, ["A", "API_KEY"]]], **said))
        self.assertNotIn("-e ", self.explain(frames, variables=[["/0/shop.py", 2, ["API_KEY"]]], **said))

    def test_data_is_not_there_yet(self):
        self.assertIn("/data is there when", self.explain(type="OperationalError", message="unable to open database file"))

    def test_what_may_not_be_meant_is_noted(self):
        report = {
            "notes": [],
            "variables": [["/0/shop.py", 4, ["DEBUG", "KEY"]]],
            "copies": [["/0/shop.py", 6]],
            "kept": [["/0/shop.py", 7, "check_login() may", {"/a/": "0/a", "/b/": "0/b"}], [None, 0, "x.Login is around the app", {"/c/": "0/c"}]],
            "places": [["/0/settings.py", 8, "the database db.sqlite3 would be in the app's folder"], [None, 0, "URI is sqlite:///x"]],
            "draws": [["/0/shop.py", 5, ["os.urandom"]], ["/0/shop.py", 9, ["random.random"]]],
            "open": ["the file /0/app.log"],
            "warmed": [["/", "200 OK"], ["/x", "KeyError: 'KEY'"]],
            "static": {"/static/": "0/staticfiles"},
            "begun": ["shop.db"],
        }
        made = Stage(Path(tempfile.mkdtemp(dir=self.folder)))
        written = [Path("app.log"), Path("staticfiles/a.css"), Path("shop.db")]
        notes = explain.notes(report, made, Path.cwd(), {"DEBUG": "1"}, written)
        for note, begin in zip(
            notes,
            [
                "shop.py:4: KEY is read from the environment",
                "shop.py:6: all of the environment is read",
                "shop.py:7: check_login() may: so the app serves /a/, /b/ itself",
                "x.Login is around the app: so the app serves /c/ itself",
                "settings.py:8: the database db.sqlite3 would",
                "URI is sqlite:///x",
                "shop.py:5, 9: random bytes are drawn",
                "app.log: written while",
                "--warm /x: it was answered with KeyError",
                "the file /0/app.log is open when",
            ],
            strict=True,
        ):
            self.assertTrue(note.startswith(f"note: {begin}"), note)
        self.assertIn('[static] with "/a/" = "0/a", "/b/" = "0/b" in the sidecar', notes[2])

    def test_what_a_sandbox_has_not_is_said(self):
        for kind, message, said in [
            ("RuntimeError", "can't start new thread", "one thread"),
            ("MemoryError", "", "it takes more memory"),
            ("OSError", "[Errno 58] wasi does not support processes.", "starts no programs"),
            ("AttributeError", "module 'os' has no attribute 'pipe'", "one process"),
            ("AttributeError", "module 'time' has no attribute 'tzset'", "UTC"),
            ("FileNotFoundError", "[Errno 44] No such file or directory: '/data/sessions'", "/data is there when it is served"),
            ("OperationalError", "no such table: shop_thing", "when a request comes"),
            ("gaierror", "[Errno -4] there is no network while the app is built", "when a request comes"),
        ]:
            self.assertRegex(self.explain(type=kind, message=message), rf"^shop\.py:3: {kind}: .*{said}")


if __name__ == "__main__":
    unittest.main()
