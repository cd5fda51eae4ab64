"""What surrounds the app: its places in the sandbox (see `wasgi.stage`), and whether there is a host yet."""

# The app's folder and its packages, as they are in the file; and what an app keeps that is granted something to keep.
APP, PACKAGES, DATA = "/0", "/1", "/data"

# While the app is imported nobody answers it: there is no network and no /data, and what it makes goes into the file.
is_served = False


def is_in(place, path):
    return path.startswith(f"{place}/")


def is_own(path):
    """Whether it came with the app: its own or its packages', and not the interpreter's."""
    return is_in(APP, path) or is_in(PACKAGES, path)


def wake():
    """The build is done: whoever asks next has a host."""
    global is_served
    is_served = True
