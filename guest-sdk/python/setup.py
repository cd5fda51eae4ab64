"""Compiles the parts of the package that are not Python: `_wasgi_native`, for the interpreter inside the sandbox.

It is the same for every machine, so the wheel is for any."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCE = Path("src/wasgi/native/module.zig")
LIBRARY = "_wasgi_native.cpython-314-wasm32-wasi.so"


class Build(build_py):
    def run(self):
        super().run()
        place = SOURCE.parent if self.editable_mode else Path(self.build_lib) / "wasgi/native"
        place.mkdir(parents=True, exist_ok=True)
        compile_library(place / LIBRARY)


def compile_library(library):
    """Position-independent code, linked as a WebAssembly library for CPython's dynamic linker (componentize-py links it)."""
    with tempfile.TemporaryDirectory() as scratch:
        caches = {"ZIG_LOCAL_CACHE_DIR": scratch, "ZIG_GLOBAL_CACHE_DIR": scratch}
        objects = f"{scratch}/module.o"
        compiler = [
            sys.executable,
            "-m",
            "ziglang",
            "build-obj",
            "-target",
            "wasm32-wasi",
            "-fPIC",
            "-O",
            "ReleaseFast",
            "-fstrip",
        ]
        linker = [
            sys.executable,
            "-m",
            "ziglang",
            "wasm-ld",
            "-shared",
            "--experimental-pic",
            "--unresolved-symbols=import-dynamic",
        ]
        subprocess.run([*compiler, str(SOURCE), f"-femit-bin={objects}"], check=True, env=os.environ | caches)
        subprocess.run([*linker, objects, "--export=PyInit__wasgi_native", "-o", str(library)], check=True)


setup(cmdclass={"build_py": Build})
