#!/bin/bash
# What the tests in virtual machines need: qemu and busybox are installed; Debian's cloud kernel and a small
# Debian with systemd are unpacked below bin/vm, where "make clean" removes them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
vm=bin/vm

needs=(qemu-system-x86_64:qemu-system-x86 busybox:busybox-static debootstrap:debootstrap)
missing=()
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ] || [ ! -e "$vm/kernel/done" ] || [ ! -e "$vm/root/done" ]; then
	if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
		echo "deps-vm: needs Debian, and root" >&2
		exit 1
	fi
	apt-get update -qq
fi
if [ ${#missing[@]} -gt 0 ]; then
	apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ ! -e "$vm/kernel/done" ]; then
	rm -rf "$vm/kernel"
	mkdir -p "$vm/kernel/deb"
	package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
	(cd "$vm/kernel/deb" && apt-get download -qq -o APT::Sandbox::User=root "$package")
	dpkg-deb -x "$vm"/kernel/deb/*.deb "$vm/kernel"
	rm -r "$vm/kernel/deb"
	busybox depmod -b "$PWD/$vm/kernel" "$(ls "$vm/kernel/lib/modules")"
	touch "$vm/kernel/done"
fi

if [ ! -e "$vm/root/done" ]; then
	rm -rf "$vm/root"
	mkdir -p "$vm/root"
	suite=$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)
	include=systemd,systemd-sysv,udev,dbus,kmod,e2fsprogs,xfsprogs,btrfs-progs,lvm2,thin-provisioning-tools,mdadm,cryptsetup-bin,psmisc,procps
	debootstrap --variant=minbase --include="$include" "$suite" "$vm/root" >"$vm/debootstrap.log" 2>&1 || {
		tail -20 "$vm/debootstrap.log" >&2
		exit 1
	}
	version=$(ls "$vm/kernel/lib/modules")
	mkdir -p "$vm/root/lib/modules"
	cp -a "$vm/kernel/lib/modules/$version" "$vm/root/lib/modules/"
	chroot "$vm/root" depmod "$version"
	rm -rf "$vm"/root/var/cache/apt/archives/*.deb "$vm"/root/var/lib/apt/lists/* "$vm"/root/usr/share/{doc,man,locale}/*
	touch "$vm/root/done"
fi
