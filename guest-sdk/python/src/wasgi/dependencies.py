"""What the app imports and is not its own: installed from a requirements file, or copied from the active environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .errors import BuildError

# The interpreter inside the component.
GUEST_PYTHON = "3.14"

# What environments hold for the sake of building, and this package itself.
_TOOLS = {
    "pip",
    "setuptools",
    "wheel",
    "_distutils_hack",
    "pkg_resources",
    "componentize_py",
    "wasgi",
    "wasgi_guest",
    "_virtualenv.py",
}

# What the name of an extension for that interpreter says.
GUEST_PLATFORM = "wasm32-wasi"
NATIVE_SUFFIXES = (".so", ".pyd", ".dylib")


def install(requirements, place):
    """`pip install -r requirements`, for the guest's interpreter where wheels exist, else for this one."""
    if not requirements.exists():
        raise BuildError(f"--requirements {requirements}: there is no such file")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-input",
    ]
    pip += ["--root-user-action=ignore", "--target", str(place), "-r", str(requirements)]
    wheels = ["--only-binary=:all:", "--python-version", GUEST_PYTHON, "--implementation", "cp"]
    # pip asks whether the packages suit its own interpreter, even so; the newest ones may be too new for that.
    wheels += ["--ignore-requires-python"]
    # A wheel with native parts often has a replacement in Python: it is installed, without them.
    wheels += ["--abi", f"cp{GUEST_PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    wheels += [
        argument
        for platform in ("any", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
        for argument in ("--platform", platform)
    ]
    first = subprocess.run(pip + wheels, capture_output=True, text=True)
    if first.returncode == 0:
        return
    if "No module named pip" in first.stderr:
        raise BuildError(
            f"{sys.executable} has no pip, which --requirements needs: python3 -m ensurepip, or install python3-pip"
        )
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    second = subprocess.run(pip, capture_output=True, text=True)
    if second.returncode != 0:
        raise BuildError(
            f"pip could not install {requirements}:\n{first.stderr.strip()}\n\nnor without wheels:\n{second.stderr.strip()}"
        )


def environment():
    """The active virtual environment's packages; None where there is none."""
    active = os.environ.get("VIRTUAL_ENV")
    if active:
        found = sorted(Path(active).glob("lib/python3*/site-packages"))
        if not found:
            raise BuildError(f"VIRTUAL_ENV is {active}, but there are no packages in it: activate it again")
        return found[-1]
    if sys.prefix != sys.base_prefix:
        return Path(sysconfig.get_path("purelib"))
    return None


def copy_environment(source, place):
    """Takes over what an environment has; returns what it only refers to (`pip install -e`)."""
    referred = []
    for path in sorted(source.iterdir()):
        name = path.name
        if name in _TOOLS or name == "__pycache__" or _is_tools_metadata(name):
            continue
        if name.endswith(".pth"):
            referred += [
                line
                for line in path.read_text().splitlines()
                if line and not line.startswith(("import ", "import\t", "#"))
            ]
        elif path.is_dir():
            shutil.copytree(path, place / name, ignore_dangling_symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy2(path, place / name)
    for folder in referred:
        if Path(folder).is_dir():
            shutil.copytree(
                folder,
                place,
                dirs_exist_ok=True,
                ignore_dangling_symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", ".git", "*.egg-info", *_TOOLS),
            )


def _is_tools_metadata(name):
    return name.endswith((".dist-info", ".egg-info")) and name.split("-")[0].lower().replace("-", "_") in _TOOLS


def strip_native(place):
    """Removes compiled files, which no sandbox can load; module name → file, for when somebody misses one."""
    removed = {}
    for folder, _, names in os.walk(place):
        for name in names:
            if (name.endswith(NATIVE_SUFFIXES) or ".so." in name) and GUEST_PLATFORM not in name:
                path = Path(folder) / name
                relative = path.relative_to(place)
                module = ".".join([*relative.parts[:-1], name.split(".")[0]])
                removed[module] = str(relative)
                path.unlink()
    return removed


def distributions(place):
    """What was installed, by name and version."""
    names = (path.name.removesuffix(".dist-info") for path in place.glob("*.dist-info"))
    return sorted(name.replace("-", " ") for name in names)
