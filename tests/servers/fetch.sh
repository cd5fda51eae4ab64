#!/bin/sh
# Fetches NGINX, Apache and Redis as Debian has them, for the tests of docs/guide-proxies.md and docs/keyvalue.md, into
# tests/servers/target: nothing is installed, and no root is needed. What the machine has installed already is used from there.
set -eu

packages="nginx libnginx-mod-stream apache2-bin redis-server"
here=$(cd "$(dirname "$0")" && pwd)
target=$here/target

fail() {
	echo "tests/servers/fetch.sh: $1" >&2
	echo "The tests of docs/guide-proxies.md and docs/keyvalue.md run the real servers. Install them (as root:" >&2
	echo "apt-get install $packages), or let apt reach its package servers." >&2
	exit 1
}

# What of the packages and of all that they need is not installed, one name a line.
missing() {
	# shellcheck disable=SC2086 # a list of words
	apt-get --simulate --no-install-recommends install $packages | awk '/^Inst /{print $2}'
}

if [ -x "$target/usr/sbin/nginx" ] && [ -x "$target/usr/sbin/apache2" ] && [ -x "$target/usr/bin/redis-server" ]; then
	exit 0
fi
if [ -x /usr/sbin/nginx ] && [ -x /usr/sbin/apache2 ] && [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] &&
	[ -x /usr/bin/redis-server ]; then
	exit 0
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "there is no apt-get here"

rm -rf "$target.new" && mkdir -p "$target.new/debs"
cd "$target.new/debs"
# Lists of packages that are old, or not there at all, name files that no longer exist; only root can renew them.
if ! { names=$(missing 2>log) && apt-get download $names >>log 2>&1; }; then
	if [ "$(id -u)" != 0 ] || ! apt-get update >>log 2>&1; then
		cat log >&2
		fail "the packages cannot be downloaded"
	fi
	names=$(missing 2>>log) || { cat log >&2; fail "apt does not know the packages"; }
	apt-get download $names >>log 2>&1 || { cat log >&2; fail "the packages cannot be downloaded"; }
fi
for package in ./*.deb; do
	dpkg -x "$package" ..
done
cd "$here"
rm -rf "$target.new/debs" "$target"
mv "$target.new" "$target"
