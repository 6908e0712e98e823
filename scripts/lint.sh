#!/bin/bash
# Format, vet, staticcheck, shellcheck.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

unformatted=$(git ls-files -z '*.go' | xargs -0 -r gofmt -l)
if [ -n "$unformatted" ]; then
	echo "lint: not gofmt'ed:" >&2
	echo "$unformatted" >&2
	exit 1
fi
"$go" vet ./...
"$go" run "$staticcheck" ./...
if command -v shellcheck >/dev/null; then
	{ git ls-files -z '*.sh'; printf '.ci/run\0packaging/install\0packaging/uninstall\0'; } | xargs -0 shellcheck
else
	echo "lint: shellcheck is missing: make deps" >&2
	exit 1
fi
# Files stay readable.
git ls-files -z '*.go' | xargs -0 wc -l | awk '$2 != "total" && $1 > 800 {print "lint: " $2 " has " $1 " lines: split it"; bad = 1} END {exit bad}'
echo "lint: clean"
