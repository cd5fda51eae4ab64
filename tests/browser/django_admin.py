#!/usr/bin/env python3
"""The admin of examples/shelf-django in a real browser: log in, add a book, see it listed. `make browser-test` calls this.

It wants Debian's packages chromium and chromium-driver; without them it says so, and does nothing. The screenshot is left in
target/browser. Nothing but the standard library is needed: the driver speaks WebDriver (https://www.w3.org/TR/webdriver2/), JSON
over HTTP."""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WASGI = ROOT / "target/debug/wasgi"
APP = ROOT / "examples/target/python/shelf-django.wasm"
SCREENSHOT = ROOT / "target/browser/django-admin.png"

USER, PASSWORD = "ann", "open sesame"
# A machine that is busy compiles the component for a minute.
PATIENCE = 300
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
]


def main():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        print("skipped: there is no chromium here (Debian: apt-get install chromium chromium-driver)")
        return
    with tempfile.TemporaryDirectory(prefix="wasgi-browser-") as folder, contextlib.ExitStack() as stack:
        address = stack.enter_context(host(Path(folder)))
        browser = stack.enter_context(webdriver(Path(folder), chromium, driver))
        admin(browser, f"{address}/shelf-django/admin/")
    print(f"the admin works; screenshot: {SCREENSHOT}")


def admin(browser, url):
    browser.open(url)
    browser.type("#id_username", USER)
    browser.type("#id_password", PASSWORD)
    browser.click("input[type=submit]")
    browser.expect("#user-tools", USER)
    browser.click("a[href$='/books/book/add/']")
    browser.type("#id_title", "The Left Hand of Darkness")
    browser.type("#id_author", "Ursula K. Le Guin")
    # The link beside the field is made by the admin's own script: it runs.
    browser.click(".datetimeshortcuts a")
    browser.click("input[name=_save]")
    browser.expect(".messagelist .success", "was added successfully")
    browser.expect("#result_list .field-title", "The Left Hand of Darkness")
    color = browser.run("return getComputedStyle(document.querySelector('#header')).backgroundColor")
    assert color == "rgb(65, 118, 144)" or color == "rgb(38, 75, 93)", f"the style sheet is missing: {color}"
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    SCREENSHOT.write_bytes(browser.screenshot())


@contextlib.contextmanager
def host(folder):
    """A host of its own with the example, a migrated database and a user."""
    (folder / "apps").mkdir()
    shutil.copy(APP, folder / "apps")
    (folder / "wasgi.toml").write_text('[grant]\ndata = ["shelf-django"]\n[limits]\ncompile_time = "5m"\ncpu_time = "60s"\n')
    environ = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    manage(folder, "migrate")
    manage(folder, "createsuperuser", "--noinput", "--username", USER, "--email", "ann@example.org", environ=environ)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([WASGI, "serve", "-b", "127.0.0.1:0"], cwd=folder, stdout=log, stderr=log)
    try:
        yield wait_for(lambda: re.search(r"listening on (http://\S+)", (folder / "log").read_text()), "the host")[1]
    finally:
        server.terminate()
        server.wait()


def manage(folder, *arguments, environ=None):
    given = [part for name, value in (environ or {}).items() for part in ("-e", f"{name}={value}")]
    subprocess.run(
        [WASGI, "manage", *given, "apps/shelf-django.wasm", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )


@contextlib.contextmanager
def webdriver(folder, chromium, driver):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(lambda: call("GET", f"{base}/status")["ready"], "chromedriver")
        options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={folder}/profile"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        session = call("POST", f"{base}/session", wanted)["sessionId"]
        browser = Browser(f"{base}/session/{session}")
        yield browser
        call("DELETE", f"{base}/session/{session}")
    finally:
        process.terminate()
        process.wait()


class Browser:
    def __init__(self, session):
        self._session = session

    def _ask(self, path, **body):
        return call("POST", f"{self._session}/{path}", body)

    def open(self, url):
        # The app may still be compiled: then there is another page.
        def is_there():
            self._ask("url", url=url)
            return "login" in self.run("return document.body.className")

        wait_for(is_there, url)

    def _element(self, selector):
        def find():
            found = self._ask("elements", using="css selector", value=selector)
            return found and next(iter(found[0].values()))

        return wait_for(find, selector)

    def type(self, selector, text):
        self._ask(f"element/{self._element(selector)}/value", text=text)

    def click(self, selector):
        self._ask(f"element/{self._element(selector)}/click")

    def expect(self, selector, text):
        found = call("GET", f"{self._session}/element/{self._element(selector)}/text")
        assert text.casefold() in found.casefold(), f"{selector} says {found!r}, not {text!r}"

    def run(self, script):
        return self._ask("execute/sync", script=script, args=[])

    def screenshot(self):
        return base64.b64decode(call("GET", f"{self._session}/screenshot"))


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {url}: {json.load(error)['value']['message']}")


def wait_for(what, name):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        time.sleep(0.2)
    sys.exit(f"{name} was waited for in vain")


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    main()
