#!/bin/bash
# sweep.sh DIR: ends what still lives below DIR and removes it.
set -euo pipefail
dir=${1:?usage: sweep.sh DIR}
case $dir in
/*/fsmigrate-lab.*) ;;
*)
	echo "sweep.sh: $dir is not a lab" >&2
	exit 2
	;;
esac

# Processes that name the lab in their arguments or environment, by their ids,
# but not this script and those that wait for it.
mine=" $$ "
pid=$PPID
while [ "$pid" -gt 1 ]; do
	mine+="$pid "
	pid=$(awk '/^PPid:/ {print $2}' "/proc/$pid/status" 2>/dev/null || echo 1)
done
for proc in /proc/[0-9]*; do
	pid=${proc#/proc/}
	case $mine in *" $pid "*) continue ;; esac
	if grep -qazF -- "$dir" "$proc/cmdline" "$proc/environ" 2>/dev/null; then
		kill -KILL "$pid" 2>/dev/null || true
	fi
done

# A loop's file is shown by its whole path, or, when it lay on a mount that is gone, by
# its path on that mount: such files carry the lab's name in theirs.
name=/$(basename "$dir")

left() {
	awk -v d="$dir/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo
	for f in /sys/block/loop*/loop/backing_file; do
		if [ -e "$f" ] && grep -qF -- "$name" "$f" 2>/dev/null; then
			echo "$f"
		fi
	done
}

for _ in $(seq 100); do
	[ -n "$(left)" ] || break
	awk -v d="$dir/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | tac | while read -r m; do
		m=$(printf '%b' "$m")
		umount "$m" 2>/dev/null || umount -l "$m" 2>/dev/null || true
	done
	for f in /sys/block/loop*/loop/backing_file; do
		if [ -e "$f" ] && grep -qF -- "$name" "$f" 2>/dev/null; then
			loop=${f#/sys/block/}
			losetup -d "/dev/${loop%%/*}" 2>/dev/null || true
		fi
	done
	sleep 0.1
done
if [ -n "$(left)" ]; then
	echo "sweep.sh: left behind in $dir:" >&2
	left >&2
	exit 1
fi
rm -rf --one-file-system "$dir"
