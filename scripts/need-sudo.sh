#!/usr/bin/env bash
# Ends with a message unless TARGET can become root for the tests that make hosts.
set -euo pipefail
target=$1
if [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1; then exit 0; fi
cat >&2 <<TEXT
make $target needs root for the tests on real hosts (network namespaces, mounts, loop devices), and there is no sudo.
Nothing was done so far.
hint: run it as root
TEXT
exit 1
