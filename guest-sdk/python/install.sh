#!/bin/sh
# Installs the SDK into a folder, with what it needs pinned by hash: `install.sh FOLDER`, then PYTHONPATH=FOLDER python3 -m wasgi.
# This repository uses it for its own examples and tests; anybody else installs with pip. The SDK's own build happens in a copy, since
# pip leaves things behind.
set -eu
folder=$1
here=$(cd "$(dirname "$0")" && pwd)

"$here/../../tests/guests/foreign/tools.sh" pip
pip() {
	python3 -m pip "$@" --quiet --disable-pip-version-check --root-user-action=ignore
}

rm -rf "$folder" "$folder.source"
mkdir -p "$(dirname "$folder")"
cp -R "$here" "$folder.source"
# What pip has left in it is as new as the copy, and would be taken for it.
rm -rf "$folder.source/build"
pip install --no-deps --require-hashes --target "$folder" -r "$here/locked.txt"
PYTHONPATH=$folder pip install --no-deps --no-build-isolation --target "$folder" --upgrade "$folder.source"
rm -rf "$folder.source"
