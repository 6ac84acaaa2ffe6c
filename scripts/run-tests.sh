#!/usr/bin/env bash
# Runs every test in two stages: first those that need nothing, then those that make hosts, as root.
#
#   scripts/run-tests.sh FILTER       FILTER: nextest filter set of the tests that make hosts
#
# Both stages run even if the first fails; the summaries stand at the end of the output.
set -euo pipefail
hosts=$1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0

stage() {
    local name=$1 filter=$2
    shift 2
    printf '\n== %s tests\n' "$name"
    env "$@" cargo nextest run --workspace --locked --no-fail-fast -E "$filter" 2>&1 | tee "$logs/$name" || failed=1
}

# Tests that need a newer kubectl than is installed are left out by name, so that the summary counts them as skipped.
minor=$(kubectl version --client -o json | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' | head -n 1)
newer=none\(\)
if [ "${minor:-0}" -lt 28 ]; then
    newer='test(/(^|::)kubectl_1_28::/)'
    printf 'kubectl is 1.%s: the tests in kubectl_1_28 need 1.28 or newer and are skipped\n' "$minor"
fi

# Likewise tests in virtual machines where scripts/setup.sh found no kernel for them.
machines=none\(\)
if [ ! -e "${CARGO_TARGET_DIR:-target}/machine/complete" ]; then
    machines='binary_id(/::machine/) or test(/^own_kernel::/)'
    printf 'there is no kernel for virtual machines: the tests in them are skipped\n'
fi

stage quick "not ($hosts) and not ($newer)"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    as_root=("CARGO_TARGET_${triple}_RUNNER=sudo -E")
fi

# Disks of the hosts are files. In memory they do not stall when something else uses this machine's disk: a stall of a second
# is a fault that a cluster has to act on, and no test of another fault expects it.
place=()
room() { df --output=avail --block-size=1G /dev/shm | tail -n 1; }
memory=$(sed -n 's/^MemAvailable: *\([0-9]*\)......  *kB$/\1/p' /proc/meminfo)
if [ -w /dev/shm ] && [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && [ "$(room)" -ge 8 ] && [ "${memory:-0}" -ge 12 ]; then
    place=(TMPDIR=/dev/shm)
fi
stage host "($hosts) and not ($machines) and not ($newer)" "${as_root[@]}" "${place[@]}"

printf '\n== summary\n'
for name in quick host; do
    printf '%-6s' "$name"
    grep -aE '^ *Summary \[' "$logs/$name" || echo ' did not run'
done
exit $failed
