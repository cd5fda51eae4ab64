"""What the app imports and is not its own: installed from a requirements file, or copied from the active environment."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from . import stage
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
    if "connection broken by" in first.stderr:
        raise BuildError(
            f"pip could not install {requirements}, since it cannot reach the index:\n{first.stderr.strip()}\n\nWithout network, activate a virtual "
            "environment that has the packages, and build without --requirements; or give pip a folder with their wheels (PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER)"
        )
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    second = subprocess.run(pip, capture_output=True, text=True)
    if second.returncode != 0:
        # Where a package is not there at all, both say the same.
        again = "" if second.stderr == first.stderr else f"\n\nnor without wheels:\n{second.stderr.strip()}"
        raise BuildError(f"pip could not install {requirements}:\n{first.stderr.strip()}{again}")


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
    """Takes over what an environment has, and what it only refers to. That may be a whole project: of it, what would be taken of an app's folder.
    Returns what was left out there."""
    tools = _tools(source)
    for path in sorted(source.iterdir()):
        name = path.name
        if name in tools or name == "__pycache__" or name.endswith(".pth") or _is_tools_metadata(name, tools):
            continue
        if path.is_dir():
            shutil.copytree(path, place / name, ignore_dangling_symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy2(path, place / name)
    missed = []
    for name, path in referred(source):
        if path.is_dir():
            missed += [path / inner for inner, _ in stage.take(path, place / name, apart_from=_TOOLS)]
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place / name)
    return missed


def referred(environment):
    """What an environment adds to the path from elsewhere (`pip install -e`): the name under which it is found there, none for a folder that
    becomes part of the path; and the file or folder."""
    for path in sorted(environment.glob("*.pth")):
        for line in path.read_text().splitlines():
            # As Python reads it: from the environment's place.
            if line.strip() and not line.startswith(("import ", "import\t", "#")) and (environment / line.rstrip()).is_dir():
                yield "", (environment / line.rstrip()).resolve()
    for path in sorted(environment.glob("__editable___*_finder.py")):
        for name, place in _mapped(path):
            place, name = Path(place), name.replace(".", "/")
            if place.is_dir():
                yield name, place
            elif (file := place.with_suffix(".py")).is_file():
                yield f"{name}.py", file


def _mapped(finder):
    """What setuptools' finder for one project says: module name → place."""
    for node in ast.parse(finder.read_bytes()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "MAPPING":
            try:
                return list(ast.literal_eval(node.value).items())
            except ValueError:
                break
    return []


def _tools(environment):
    """Those that no package asks for: a few need setuptools when they run (`pkg_resources`)."""
    for metadata in environment.glob("*.dist-info/METADATA"):
        if re.search(r"(?m)^Requires-Dist: setuptools(?![\w.-])(?!.*\bextra\b)", metadata.read_text(errors="replace")):
            return _TOOLS - {"setuptools", "pkg_resources", "_distutils_hack"}
    return _TOOLS


def _is_tools_metadata(name, tools):
    return name.endswith((".dist-info", ".egg-info")) and name.split("-")[0].lower().replace("-", "_") in tools


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
