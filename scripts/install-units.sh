#!/bin/bash
# install-units.sh PACKAGING UNITDIR SBINDIR: installs the systemd units, if there
# are any, with the path of the binary that was installed.
set -euo pipefail
from=$1 to=$2 sbin=$3
shopt -s nullglob
for unit in "$from"/*.service "$from"/systemd/*.service; do
	install -d -m 0755 "$to"
	sed -E "s|(/usr/local)?(/usr)?/s?bin/fsmigrate\b|$sbin/fsmigrate|g; s|@SBINDIR@|$sbin|g" "$unit" >"$to/$(basename "$unit")"
	chmod 0644 "$to/$(basename "$unit")"
	echo "installed $to/$(basename "$unit")"
done
