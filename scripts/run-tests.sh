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

stage quick "not ($hosts)"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    as_root=("CARGO_TARGET_${triple}_RUNNER=sudo -E")
fi
stage host "$hosts" "${as_root[@]}"

printf '\n== summary\n'
for name in quick host; do
    printf '%-6s' "$name"
    grep -aE '^ *Summary \[' "$logs/$name" || echo ' did not run'
done
exit $failed
