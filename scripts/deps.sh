#!/bin/bash
# Installs what building and testing need on Debian, if it is missing.
set -euo pipefail

if ! command -v "${GO:-go}" >/dev/null; then
	want=$(awk '$1 == "go" {print $2}' "$(dirname "$0")/../go.mod")
	echo "deps: the go command is missing. Install Go $want from https://go.dev/dl/ and put it in PATH:" >&2
	echo "  curl -L https://go.dev/dl/go$want.linux-amd64.tar.gz | tar -C /usr/local -xz; export PATH=\$PATH:/usr/local/go/bin" >&2
	exit 1
fi

# A program that must be there, and the package that has it.
needs=(
	mkfs.ext4:e2fsprogs e2fsck:e2fsprogs lsattr:e2fsprogs mkfs.xfs:xfsprogs xfs_io:xfsprogs xfs_repair:xfsprogs
	mkfs.btrfs:btrfs-progs rsync:rsync getfattr:attr getfacl:acl getcap:libcap2-bin setcap:libcap2-bin
	losetup:mount mount:mount findmnt:util-linux wipefs:util-linux blkid:util-linux unshare:util-linux nsenter:util-linux
	sfdisk:fdisk sqlite3:sqlite3 git:git shellcheck:shellcheck gcc:gcc
)
# What the benchmark compares with, and is happy without.
if [ "${1:-}" = peers ]; then
	needs=(fpsync:fpart fpart:fpart fio:fio pgbench:postgresql pg_createcluster:postgresql btrfs-convert:btrfs-progs)
fi
export PATH=$PATH:/usr/sbin:/sbin
missing=()
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if ! command -v apt-get >/dev/null; then
	echo "deps: missing, and this is no Debian: ${missing[*]}" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "deps: run as root, or install by hand: apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -qq --no-install-recommends "${missing[@]}")
"${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}"; }
