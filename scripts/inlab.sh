#!/bin/bash
# Runs a command with a temporary directory of its own, and leaves nothing of it
# behind: processes, mounts, loops, files. Also when it fails or is interrupted.
set -euo pipefail

# Not /tmp: where that is a tmpfs, state on it would rightly be refused.
lab=$(mktemp -d -p "${FSMIGRATE_LAB:-/var/tmp}" fsmigrate-lab.XXXXXX)
here=$(cd "$(dirname "$0")" && pwd)
child=

# shellcheck disable=SC2317 # called by the trap
cleanup() {
	local code=$?
	trap '' INT TERM EXIT
	if [ -n "$child" ] && kill -0 "$child" 2>/dev/null; then
		kill -TERM -- "-$child" 2>/dev/null || true
		for _ in $(seq 50); do
			kill -0 "$child" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$child" 2>/dev/null || true
	fi
	"$here/sweep.sh" "$lab" || code=1
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

set -m # a process group of its own, so that all of it can be ended
# And a mount namespace of its own: a copy of its mounts in a namespace that somebody
# else makes meanwhile would rightly be refused as another way to write.
TMPDIR=$lab unshare --mount --propagation private -- "$@" &
child=$!
set +m
status=0
wait "$child" || status=$?
child=
exit "$status"
