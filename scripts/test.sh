#!/bin/bash
# The whole suite, in three parts: what is concurrent with the race detector, the
# rest, and the built command on real volumes. Packages run one after the other:
# each of them may use loops and compares times.
#
# A skipped test fails the suite unless scripts/allowed-skips.txt names it.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
if [ "$(id -u)" -ne 0 ]; then
	echo "test: needs root: it mounts volumes on loop devices" >&2
	exit 1
fi

"$go" build -o "$TMPDIR/testjson" ./scripts/testjson
limit=35m
[ "${FSMIGRATE_LONG:-}" != 1 ] || limit=12h

# part LABEL FLAGS... -- PACKAGES...
part() {
	local label=$1
	shift
	echo "== $label"
	"$go" test -json -count=1 -timeout "$limit" "$@" | "$TMPDIR/testjson" -allow scripts/allowed-skips.txt
}

concurrent='/(migrate|shadow|copier|control|host|statedir|service|status|churn)(/|$)'
module=$("$go" list -m)
mapfile -t all < <("$go" list ./... | grep -vE "^$module/(e2e|scripts)(/|\$)")
mapfile -t race < <(printf '%s\n' "${all[@]}" "$module/e2e/churn" | grep -E "$concurrent")
mapfile -t plain < <(printf '%s\n' "${all[@]}" "$module/e2e/oracle" "$module/e2e/pledge" "$module/e2e/vm/agent" "$module/e2e/program" "$module/scripts" "$module/scripts/testjson" "$module/scripts/mutants" | grep -vE "$concurrent")

failed=0
part "with the race detector" -race -p 1 "${race[@]}" || failed=1
part "the rest" -p 1 "${plain[@]}" || failed=1
part "the command on real volumes" -p 1 ./e2e || failed=1
if [ "${FSMIGRATE_LONG:-}" = 1 ]; then
	echo "== the calls of a cutover, left out one at a time"
	"$go" build -o "$TMPDIR/mutants" ./scripts/mutants
	"$TMPDIR/mutants" -path run || failed=1
	scripts/deps-vm.sh
	part "in virtual machines" -p 1 ./e2e/vm || failed=1
fi
exit "$failed"
