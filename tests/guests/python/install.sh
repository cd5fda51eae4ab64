#!/bin/sh
# Installs the SDK into a folder, with what it needs pinned: `install.sh FOLDER SDK`. Its own build happens in a copy, since pip
# leaves things behind.
set -eu
folder=$1 sdk=$2
here=$(cd "$(dirname "$0")" && pwd)

"$here/../foreign/tools.sh" pip
pip() {
	python3 -m pip "$@" --quiet --disable-pip-version-check --root-user-action=ignore
}

rm -rf "$folder" "$folder.source"
cp -R "$sdk" "$folder.source"
pip install --no-deps --require-hashes --target "$folder" -r "$here/sdk.txt"
PYTHONPATH=$folder pip install --no-deps --no-build-isolation --target "$folder" --upgrade "$folder.source"
rm -rf "$folder.source"
