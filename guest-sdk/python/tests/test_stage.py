"""What of an app's folder and its packages goes into the file: python3 -m unittest discover guest-sdk/python/tests"""

import os
import unittest
from pathlib import Path
from unittest import mock

from test_build import Folder
from wasgi import bundle, dependencies, explain, stage
from wasgi.errors import BuildError
from wasgi.stage import Stage


class Stages(Folder):
    def test_a_stage_has_the_app_and_no_secrets(self):
        for name in [
            "app.py",
            "static/a.css",
            ".env",
            ".git/config",
            "db.sqlite3",
            "v/pyvenv.cfg",
            "v/x.py",
            "old.wasm",
            "a/__pycache__/a.pyc",
        ]:
            self.write(f"project/{name}")
        made = Stage(self.folder / "stage")
        missed = made.take_app(self.folder / "project", self.folder / "project/out.wasm")
        found = sorted(str(path.relative_to(made.app)) for path in made.app.rglob("*") if path.is_file())
        self.assertEqual(found, ["app.py", "static/a.css"])
        self.assertEqual(sorted(str(path) for path, _ in missed), [".env", "db.sqlite3", "old.wasm"])
        made.include(self.folder / "project/db.sqlite3", self.folder / "project")
        self.assertTrue((made.app / "db.sqlite3").is_file())
        with self.assertRaisesRegex(BuildError, "no such file"):
            made.include(self.folder / "nothing", self.folder / "project")

    def test_databases_and_secrets_stay_here_whatever_they_are_called(self):
        magic = "SQLite format 3\0 and the rows"
        for name, text in {
            "app.py": "",
            "words.db": "words",
            "notes-journal": "a diary",
            "shop.s3db": "",
            "shop.SQLITE": "",
            "shop.sqlite2": "",
            "shop.db": magic,
            "shop.db-wal": "",
            "shop.db-shm": "",
            "shop.sqlite3-journal": "",
            "static/shop.bin": magic,
            "static/shop.bin-wal": "",
            "static/shop.bin-journal": "",
            "prod.env": "SECRET=1",
            ".env.local": "SECRET=1",
            "Prod.ENV": "SECRET=1",
        }.items():
            self.write(name, text)
        for name, magic in [("a", b"\x37\x7f\x06\x82"), ("b", b"\x37\x7f\x06\x83"), ("c", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")]:
            (self.folder / name).write_bytes(magic + b"\0rows")
        found = sorted(str(path.relative_to(self.folder)) for path, kind in stage.files(self.folder) if kind is stage.Kind.TAKEN)
        self.assertEqual(found, ["app.py", "notes-journal", "words.db"])

    def test_a_file_that_becomes_a_database_is_seen_as_one(self):
        self.write("shop.bin")
        self.assertEqual([kind for _, kind in stage.files(self.folder)], [stage.Kind.TAKEN])
        self.write("shop.bin", "SQLite format 3\0")
        self.assertEqual([kind for _, kind in stage.files(self.folder)], [stage.Kind.LEFT_OUT])

    def test_folders_that_cannot_be_read_or_went_do_not_end_a_build(self):
        for name in ["a/x.py", "closed/y.py", "went/z.py", "shop.py"]:
            self.write(f"app/{name}")
        (self.folder / "app/round").symlink_to("round")
        listed, errors = os.listdir, {"closed": PermissionError, "went": FileNotFoundError}

        def listdir(folder):
            if error := errors.get(Path(folder).name):
                raise error(folder)
            return listed(folder)

        with mock.patch.object(os, "listdir", listdir):
            found = {str(path.relative_to(self.folder / "app")): kind.name for path, kind in stage.files(self.folder / "app")}
        self.assertEqual(found, {"a/x.py": "TAKEN", "closed": "LEFT_OUT", "shop.py": "TAKEN", "round": "LINK"})
        self.assertEqual(list(stage.files(self.folder / "nowhere")), [])

        def gone(source, place):
            if source.name == "x.py":
                source.unlink()
            copy(source, place)

        copy, made = stage._copy, Stage(self.folder / "stage")
        with mock.patch.object(stage, "_copy", gone):
            made.take_app(self.folder / "app", self.folder / "out.wasm")
        self.assertEqual({path.name for path in made.app.rglob("*.py")}, {"shop.py", "y.py", "z.py"})

    def test_a_link_is_judged_by_its_name_and_by_where_it_leads(self):
        for name in [".env", ".git/config", ".git/hooks/x", "wasgi.toml", "data/shop/rows.txt", "plain.txt"]:
            self.write(name, "data_dir = 'data'" if name == "wasgi.toml" else "text")
        self.write("apps/shop.wasm")
        self.write("apps/shop.toml")
        for name, target in {
            "x.db": ".env",
            "prod.env": "plain.txt",
            "config.txt": ".git/config",
            "hooks": ".git/hooks",
            "settings.txt": "wasgi.toml",
            "sidecar.txt": "apps/shop.toml",
            "rows.txt": "data/shop/rows.txt",
            "shop": "data/shop",
            "taken.txt": "plain.txt",
        }.items():
            (self.folder / name).symlink_to(target)
        found = sorted(path.name for path, kind in stage.files(self.folder) if kind is stage.Kind.TAKEN)
        self.assertEqual(found, ["plain.txt", "taken.txt"])

    def test_links_are_followed_within_the_folder_and_those_out_of_it_are_said(self):
        self.write("elsewhere/media/a.png")
        self.write("project/app.py")
        self.write("project/.env", "SECRET=1")
        self.write("project/shared/a.css")
        self.write("project/node_modules/bootstrap/b.css")
        for name, target in [
            ("again.py", "app.py"),
            ("static", "shared"),
            ("shared/round", "../shared"),
            ("round", "."),
            ("vendor", "node_modules/bootstrap"),
            ("environment.txt", ".env"),
            ("uploads", "../elsewhere/media"),
            ("passwd", "/etc/passwd"),
            ("gone", "nothing"),
        ]:
            (self.folder / "project" / name).symlink_to(target)
        made = Stage(self.folder / "stage")
        missed = made.take_app(self.folder / "project", self.folder / "out.wasm")
        found = sorted(str(path.relative_to(made.app)) for path in made.app.rglob("*") if path.is_file())
        self.assertEqual(found, ["again.py", "app.py", "shared/a.css", "static/a.css", "vendor/b.css"])
        kinds = {str(path): kind.name for path, kind in missed}
        links = dict.fromkeys(["gone", "passwd", "uploads"], "LINK")
        self.assertEqual(kinds, {".env": "LEFT_OUT", "environment.txt": "LEFT_OUT", **links})
        made.include(self.folder / "project/uploads", self.folder / "project")
        self.assertTrue((made.app / "uploads/a.png").is_file())
        self.assertEqual([str(path) for path, _ in made.lacking(missed)], [".env", "environment.txt", "gone", "passwd"])
        lines = list(explain.result("x.wasm", b"", b"", made, {"application": "app.app", "warmed": [], "modules": []}, {}, missed))
        self.assertIn("gone, passwd, uploads (links out of", "".join(line for line in lines if "links" in line))

    def test_databases_stay_whatever_they_are_called(self):
        (self.folder / "site.db").write_bytes(b"SQLite format 3\0...")
        self.write("words.db", "not one")
        kinds = {path.name: kind.name for path, kind in stage.files(self.folder)}
        self.assertEqual(kinds, {"site.db": "LEFT_OUT", "words.db": "TAKEN"})

    def test_what_a_host_has_in_the_same_folder_is_not_the_apps(self):
        for name in [
            "shop.py",
            "pyproject.toml",
            "data/words.txt",
            "wasgi.toml",
            ".wasgi/cache/x",
            "apps/shop.wasm",
            "apps/shop.toml",
            "apps/blog/one.wasm",
            "data/shop/picture.png",
            "data/blog+one/x",
        ]:
            self.write(name)
        found = [str(path.relative_to(self.folder)) for path, kind in stage.files(self.folder) if kind is stage.Kind.TAKEN]
        self.assertEqual(found, ["pyproject.toml", "shop.py", "data/words.txt"])
        self.write("wasgi.toml", "apps_dir = 'elsewhere'\ndata_dir = 'data'\n")
        found = [path.name for path, kind in stage.files(self.folder) if kind is stage.Kind.TAKEN]
        self.assertIn("picture.png", found)

    def test_setuptools_are_taken_where_a_package_needs_them(self):
        for number, (requires, are_taken) in enumerate([
            ("setuptools", True),
            ("setuptools>=60", True),
            ('setuptools; extra == "testing"', False),
            ("setuptools-scm", False),
            ("flask", False),
        ]):
            place = f"site-packages{number}"
            self.write(f"{place}/pkg_resources/__init__.py")
            self.write(f"{place}/setuptools-80.dist-info/METADATA", "Name: setuptools\n")
            self.write(f"{place}/pyramid-2.dist-info/METADATA", f"Name: pyramid\nRequires-Dist: {requires}\n")
            taken = self.folder / f"taken{number}"
            taken.mkdir()
            dependencies.copy_environment(self.folder / place, taken)
            self.assertEqual((taken / "pkg_resources").is_dir(), are_taken, requires)
            self.assertEqual((taken / "setuptools-80.dist-info").is_dir(), are_taken, requires)

    def test_native_files_go_and_are_remembered(self):
        self.write("p/pkg/_speed.cpython-314-x86_64-linux-gnu.so")
        self.write("p/kept.cpython-314-wasm32-wasi.so")
        self.write("p/pkg/__init__.py")
        removed = dependencies.strip_native(self.folder / "p")
        self.assertEqual(removed, {"pkg._speed": "pkg/_speed.cpython-314-x86_64-linux-gnu.so"})
        self.assertTrue((self.folder / "p/kept.cpython-314-wasm32-wasi.so").is_file())

    def test_links_to_nothing_do_not_end_a_build(self):
        self.write("site-packages/flask/x.py")
        (self.folder / "site-packages/flask/gone.py").symlink_to("nothing")
        (self.folder / "site-packages/gone").symlink_to("nothing")
        self.write("data/a.txt")
        (self.folder / "data/gone").symlink_to("nothing")
        (self.folder / "taken").mkdir()
        dependencies.copy_environment(self.folder / "site-packages", self.folder / "taken")
        made = Stage(self.folder / "stage")
        made.include(self.folder / "data", self.folder)
        found = [path.name for place in (self.folder / "taken", made.app) for path in bundle.files(place)]
        self.assertEqual(found, ["x.py", "a.txt"])

    def test_of_a_folder_that_is_included_is_taken_what_is_taken_of_an_app(self):
        for name in ["shared/words.txt", "shared/.env", "shared/site.sqlite3", "shared/.git/config", "shared/a/b.css", "app/app.py"]:
            self.write(name, "text")
        (self.folder / "shared/passwd").symlink_to("/etc/passwd")
        made = Stage(self.folder / "stage")
        missed = made.include(self.folder / "shared", self.folder / "app")
        found = sorted(str(path) for path in bundle.files(made.app))
        self.assertEqual(found, [f"{made.app}/shared/a/b.css", f"{made.app}/shared/words.txt"])
        self.assertEqual(
            {str(path): kind.name for path, kind in missed},
            {"shared/.env": "LEFT_OUT", "shared/site.sqlite3": "LEFT_OUT", "shared/passwd": "LINK"},
        )
        # What is named itself is meant.
        made.include(self.folder / "shared/.env", self.folder / "app")
        self.assertTrue((made.app / "shared/.env").is_file())
        self.assertEqual([path.name for path, _ in made.lacking(missed + missed)], ["passwd", "site.sqlite3"])

    def test_what_an_environment_refers_to_is_taken_as_an_app_is(self):
        project = self.folder / "project"
        for name in [".env", "db.sqlite3", ".git/config", "shop/app.py", "v/pyvenv.cfg", "v/lib/x.py", "wasgi/build.py"]:
            self.write(f"project/{name}", "text")
        self.write("site-packages/mine.pth", f"import os\n# text\n\n{project}\n../relative\n/nowhere\n")
        self.write("relative/other.py")
        self.write("flat/setup.py")
        self.write("flat/mine/a.py")
        self.write("flat/mine/.env")
        self.write("flat/one.py")
        mapping = {"mine": f"{self.folder}/flat/mine", "in.side": f"{self.folder}/flat/mine", "one": f"{self.folder}/flat/one", "gone": "/nowhere"}
        self.write("site-packages/__editable___flat_1_finder.py", f"import sys\nMAPPING: dict[str, str] = {mapping}\n")
        (self.folder / "taken").mkdir()
        missed = dependencies.copy_environment(self.folder / "site-packages", self.folder / "taken")
        found = sorted(str(path.relative_to(self.folder / "taken")) for path in bundle.files(self.folder / "taken"))
        finder = "__editable___flat_1_finder.py"
        self.assertEqual(found, [finder, "in/side/a.py", "mine/a.py", "one.py", "other.py", "shop/app.py"])
        left = [project / ".env", project / "db.sqlite3", *[self.folder / "flat/mine/.env"] * 2]
        self.assertEqual(missed, left)

    def test_why_packages_cannot_be_installed_is_said_once(self):
        def install(*said):
            done = [mock.Mock(returncode=1, stderr=stderr) for stderr in said]
            with mock.patch.object(dependencies.subprocess, "run", mock.Mock(side_effect=done)):
                with self.assertRaises(BuildError) as raised:
                    dependencies.install(self.write("requirements.txt"), self.folder / "place")
            return str(raised.exception)

        unreachable = install("WARNING: Retrying after connection broken by 'x'\nERROR: No matching distribution found for flask")
        self.assertIn("Without network, activate a virtual environment", unreachable)
        self.assertEqual(install("ERROR: No matching", "ERROR: No matching").count("No matching"), 1)
        both = install("ERROR: no wheel", "ERROR: gcc failed")
        self.assertRegex(both, "(?s)no wheel.*nor without wheels.*gcc failed")

    def test_an_environment_is_taken_without_its_tools(self):
        for name in [
            "pip/x.py",
            "flask/x.py",
            "wasgi/x.py",
            "pip-23.dist-info/METADATA",
            "flask-3.dist-info/METADATA",
            "six.py",
        ]:
            self.write(f"site-packages/{name}")
        self.write("elsewhere/mine.py")
        self.write("site-packages/mine.pth", f"{self.folder}/elsewhere\nimport os\n")
        (self.folder / "taken").mkdir()
        dependencies.copy_environment(self.folder / "site-packages", self.folder / "taken")
        self.assertEqual(
            sorted(path.name for path in (self.folder / "taken").iterdir()),
            ["flask", "flask-3.dist-info", "mine.py", "six.py"],
        )


if __name__ == "__main__":
    unittest.main()
