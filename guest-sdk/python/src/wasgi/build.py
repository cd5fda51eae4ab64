"""`wasgi build`, from target to file."""

import os
import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

from . import bundle, dependencies, explain, library, record, sources, target
from .errors import BuildError
from .stage import Stage

WORLD = "python"
ENTRY = "wasgi_guest.entry"


def run(options):
    source = options.chdir.resolve()
    if not source.is_dir():
        raise BuildError(f"--chdir {options.chdir}: there is no such folder")
    wanted = target.parse(options.target, source)
    for path in options.warm:
        if not path.startswith("/"):
            raise BuildError(f"--warm {path}: a path of the app begins with /")
    output = _output(options.output, wanted.name(source))
    environ = _environ(options.env, wanted.settings)
    # What changes from now on is not in the file.
    state = sources.state(options)
    with tempfile.TemporaryDirectory(prefix="wasgi-build-") as folder:
        stage = Stage(Path(folder))
        say(f"collecting {os.path.relpath(source)}")
        left_out = stage.take_app(source, output.resolve())
        # A file that lies in one of the folders goes where that is.
        for path in sorted(options.include, key=lambda path: not path.is_dir()):
            left_out += stage.include(path, source)
        left_out = stage.lacking(left_out)
        native = _take_dependencies(stage, options.requirements)
        stage.take_guest({"module": wanted.module, "expression": wanted.expression, "environ": environ, "warm": options.warm})
        if not library.cached().is_file():
            say(f"unpacking the standard library of CPython {dependencies.GUEST_PYTHON} (once)")
            _componentize(stage, library.ENTRY)
            library.keep(stage.guest)
        say(f"importing {wanted.module} in CPython {dependencies.GUEST_PYTHON} for WebAssembly (takes some seconds)")
        before = set(bundle.files(stage.app))
        component = _componentize(stage, ENTRY)
        written = [path.relative_to(stage.app) for path in bundle.files(stage.app) if path not in before]
        report = stage.report()
        if component is None:
            raise BuildError(explain.failure(report, stage, source, native))
        say("bundling files")
        notes = explain.notes(report, stage, source, environ, written)
        contents = component.read_bytes()
        files = bundle.archive(
            {str(index): getattr(stage, name) for index, name in enumerate(Stage.ORDER)}, library.cached()
        )
        contents += bundle.section("wasgi:app", bundle.manifest(report))
        contents += bundle.section("wasgi:files", files)
        try:
            record.keep(contents, options, state)
        except OSError as error:
            say(f"note: `wasgi serve --dev` will not rebuild this app: its record cannot be kept: {error}")
        _write_whole(output, contents)
        for line in explain.result(output, contents, files, stage, report, native, left_out):
            say(line)
        for note in notes:
            say(note)


def say(text):
    print(text, file=sys.stderr, flush=True)


def _output(output, name):
    if output is None:
        return Path(f"{name}.wasm")
    is_folder, output = output.endswith(os.sep), Path(output)
    if is_folder and output.parent.is_dir():
        output.mkdir(exist_ok=True)
    if output.is_dir():
        return output / f"{name}.wasm"
    if not output.parent.is_dir():
        raise BuildError(f"-o {output}: there is no folder {output.parent}")
    return output


def _environ(pairs, settings):
    environ = {} if settings is None else {"DJANGO_SETTINGS_MODULE": settings}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise BuildError(f"-e {pair}: write NAME=VALUE")
        environ[name] = value
    return environ


def _take_dependencies(stage, requirements):
    if requirements is not None:
        say(f"installing {requirements}")
        dependencies.install(requirements, stage.dependencies)
    elif environment := dependencies.environment():
        say(f"taking the packages of {environment}")
        if left_out := dependencies.copy_environment(environment, stage.dependencies):
            say(f"note: {explain.some(map(os.path.relpath, left_out))}: left out of what the environment refers to (databases, .env and .wasm files stay here)")
    else:
        say("no virtual environment is active and no --requirements given: the app's own modules only")
    return dependencies.strip_native(stage.dependencies) | dependencies.strip_native(stage.app)


def _componentize(stage, entry):
    """Runs componentize-py; the component, or None where the guest has said what went wrong."""
    component = stage.folder / "component.wasm"
    with resources.as_file(resources.files("wasgi") / "wit") as wit:
        command = [
            sys.executable,
            "-c",
            "from componentize_py import script; script()",
            "-q",
            "-d",
            str(wit),
            "-w",
            WORLD,
        ]
        command += ["componentize", entry, "-o", str(component)]
        for name in Stage.ORDER:
            command += ["-p", str(getattr(stage, name))]
        # The build's own environment is nobody's business inside, and the backtrace of a failure nobody's outside.
        environ = os.environ | {
            "VIRTUAL_ENV": str(stage.environment),
            "TMPDIR": str(stage.folder / "tmp"),
            "RUST_BACKTRACE": "0",
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environ)
    if done.returncode == 0 and component.is_file():
        return component
    if stage.has_answered():
        return None
    raise BuildError(
        f"componentize-py {metadata.version('componentize-py')} failed:\n{done.stderr.strip() or done.stdout.strip()}"
    )


def _write_whole(path, contents):
    """Writes beside and renames: a host that watches the folder sees the old file or the whole new one."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".wasgi-build-", delete=False) as file:
            try:
                file.write(contents)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise BuildError(f"{path} cannot be written: {error.strerror}") from None
