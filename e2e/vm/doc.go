// Package vm runs tests in real virtual machines: qemu without acceleration, Debian's cloud
// kernel, and either an initramfs of our own or a Debian root with systemd. What it
// needs is put below bin/vm by scripts/deps-vm.sh; nothing is downloaded by a test.
//
// The machine's disks are images that a recorder serves (blockdev/record): when the
// machine is killed, what it had written and not flushed can be lost, as in a disk's
// volatile cache. Killing qemu alone loses nothing of what reached the host.
//
// Nothing of the product is imported, but the recorder, which is part of the tests.
package vm
