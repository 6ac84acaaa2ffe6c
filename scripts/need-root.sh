#!/usr/bin/env bash
# Ends with a message that says what TARGET needs root for, unless this is root. Runs before anything else.
set -euo pipefail
target=$1
if [ "$(id -u)" -eq 0 ]; then exit 0; fi
cat >&2 <<TEXT
make $target needs root: it makes network namespaces and bridges, mounts file systems, sets up loop devices and
control groups on this machine, and takes all of it down again at the end. Nothing was done so far.
hint: sudo env "PATH=\$PATH" make $target
TEXT
exit 1
