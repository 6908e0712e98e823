#!/bin/bash
# Runs every fuzz target for a short while: FUZZ_SECONDS in total, 10 s each at most.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
total=${FUZZ_SECONDS:-240}

mapfile -t targets < <(git ls-files -co --exclude-standard '*_test.go' |
	xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]+' | sed -E 's/^(.*):func (.*)$/\1 \2/' | sort -u)
if [ ${#targets[@]} -eq 0 ]; then
	echo "fuzz: no targets" >&2
	exit 1
fi
each=$((total / ${#targets[@]}))
[ "$each" -le 10 ] || each=10
[ "$each" -ge 1 ] || each=1
echo "fuzz: ${#targets[@]} targets, $each s each"
out=$(mktemp)
trap 'rm -f "$out"' EXIT
deadline=$((SECONDS + total + 240)) # compiling included
for line in "${targets[@]}"; do
	read -r file name <<<"$line"
	if [ "$SECONDS" -gt "$deadline" ]; then
		echo "fuzz: out of time before $name" >&2
		exit 1
	fi
	status=0
	"$go" test -run '^$' -fuzz "^$name\$" -fuzztime "${each}s" -fuzzminimizetime 5s "./$(dirname "$file")" \
		>"$out" 2>&1 || status=$?
	if [ "$status" -ne 0 ]; then
		# The go command may report the end of the time as the target's failure
		# (golang.org/issue/75804): a failure that found something names its input.
		if ! grep -q 'context deadline exceeded' "$out" || grep -q 'Failing input written' "$out"; then
			cat "$out"
			exit "$status"
		fi
	fi
	echo "fuzz: $name: $(grep -oE 'execs: [0-9]+' "$out" | tail -n 1 || true), nothing found"
done
