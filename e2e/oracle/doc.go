// Package oracle compares two trees with other people's programs only: rsync,
// lsattr, getfattr, getfacl, getcap, sha256sum, find and stat; and judges volumes
// with e2fsck, xfs_repair and btrfs check.
//
// It shares no code, no reader and no assumption with what it judges. What it
// adds is bringing two outputs into one order and saying where they part.
package oracle
