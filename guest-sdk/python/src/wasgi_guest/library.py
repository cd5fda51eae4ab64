"""The standard library as a tar, for the builder: inside is the only place that has all of it. Importing this module writes it."""

import os
import tarfile

_PLACE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "library.tar")

with tarfile.open(_PLACE, "w") as archive:
    archive.add("/python", arcname="python", filter=lambda entry: None if entry.name.endswith("__pycache__") else entry)

# No component is to be made of this.
raise SystemExit
