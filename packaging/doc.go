// Package packaging holds what an installation puts beside the command: systemd's unit,
// tmpfiles and sysusers, and the installer that makes the link mount.fsmigrate, by
// which mount(8) and the boot find the truth of a migration. There is no code in it.
package packaging
