"""Log files and folders, inside: python3 -m unittest discover guest-sdk/python/tests"""

import contextlib
import io
import logging
import logging.handlers
import os
import unittest
from unittest import mock

from test_guest import Folder
from wasgi_guest import folders, logs, world


class Logs(Folder):
    """The place for logs cannot be written to until it is made: as a folder in the file never can."""

    def setUp(self):
        super().setUp()
        for owner, name in [(logging.FileHandler, "_open"), (world, "is_served")]:
            patch = mock.patch.object(owner, name, getattr(owner, name))
            patch.start()
            self.addCleanup(patch.stop)
        logs.install()
        self.kinds = [
            logging.FileHandler,
            logging.handlers.WatchedFileHandler,
            lambda file: logging.handlers.RotatingFileHandler(file, maxBytes=10, backupCount=2),
            lambda file: logging.handlers.TimedRotatingFileHandler(file, when="S"),
        ]

    def log(self, handler, text):
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            handler.handle(logging.makeLogRecord({"msg": text}))
        self.addCleanup(handler.close)
        return error.getvalue()

    def test_what_cannot_be_written_to_a_file_goes_to_the_apps_log(self):
        for number, kind in enumerate(self.kinds):
            world.is_served = False
            handler = kind(self.folder / f"none{number}/app.log")
            self.assertEqual(self.log(handler, "of the import"), "of the import\n")
            report = {}
            logs.finish(report)
            self.assertIn(f"none{number}/app.log goes to the app's log", str(report["places"]))
            world.wake()
            for text in ["first", "second, of some length"]:
                self.assertEqual(self.log(handler, text), f"{text}\n")

    def test_a_file_is_opened_when_there_is_something_to_log(self):
        for number, kind in enumerate(self.kinds):
            world.is_served = False
            folder = self.folder / f"data{number}"
            handler = kind(folder / "app.log")
            self.log(handler, "of the import")
            logs.finish({})
            # It is there when the app is served.
            folder.mkdir()
            world.wake()
            self.assertEqual(self.log(handler, "text"), "")
            self.assertEqual((folder / "app.log").read_text(), "text\n")

    def test_one_in_data_asks_for_it(self):
        handler = logging.FileHandler("/data/app.log")
        self.addCleanup(handler.close)
        report = {}
        with mock.patch.object(logging, "_handlerList", [lambda: handler]):
            logs.finish(report)
        self.assertEqual(report, {"data": True})
        self.assertFalse(os.path.exists("/data/app.log"))


class Folders(Folder):
    def test_folders_in_data_are_made_when_there_is_one(self):
        data = self.folder / "data"
        for owner, name, value in [(world, "DATA", str(data)), (folders, "wanted", []), (os, "mkdir", os.mkdir)]:
            patch = mock.patch.object(owner, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        folders.install()
        stand_in, report = os.mkdir, {}
        os.mkdir(self.folder / "other")
        folders.finish(report)
        self.assertEqual((report, (self.folder / "other").is_dir()), ({}, True))
        folders.install()
        os.makedirs(data / "a/b", exist_ok=True)
        (data / "c").mkdir()
        folders.finish(report)
        self.assertEqual((report, data.exists()), ({"data": True}, False))
        # What a host has made before.
        folders._mkdir(data)
        folders._mkdir(data / "c")
        folders.wake()
        self.assertTrue((data / "a/b").is_dir())
        self.assertIs(os.mkdir, folders._mkdir)
        # An app may have taken hold of what stood in for it.
        with mock.patch.object(world, "is_served", True):
            stand_in(data / "d")
        self.assertTrue((data / "d").is_dir())


if __name__ == "__main__":
    unittest.main()
