#!/bin/bash
# Known vulnerabilities in code that the program reaches: fails when there are some.
#
# When nobody can say (no network, no tool, no database) it says "NOT CHECKED" and does not fail: a merge
# must not wait for somebody else's server, and an old answer would be no better than none.
# Before a release FSMIGRATE_VULN=required makes that a failure too.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
go=${GO:-go}
version=v1.9.0
limit=${VULN_LIMIT:-300} # seconds for each of the two steps

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unchecked() {
	echo "vuln: NOT CHECKED: $1" >&2
	tail -n 3 "$work/log" >&2
	[ "${FSMIGRATE_VULN:-}" != required ] || exit 1
	exit 0
}

# Not "go run": that answers 1 whatever the program answered.
tool=${GOVULNCHECK:-$work/govulncheck}
if [ ! -x "$tool" ]; then
	GOBIN=$work timeout "$limit" "$go" install "golang.org/x/vuln/cmd/govulncheck@$version" >"$work/log" 2>&1 || unchecked "govulncheck $version cannot be installed"
fi
timeout "$limit" "$tool" ./... >"$work/log" 2>&1
case $? in
0) echo "vuln: none known" ;;
3)
	cat "$work/log" >&2
	echo "vuln: the program reaches what is known to be vulnerable: raise the modules above" >&2
	exit 1
	;;
*) unchecked "govulncheck did not come to an answer" ;;
esac
