// Package formats says what an on-disk format is: its name and versions, its
// limits, what it records, how to recognise it, make it and check it, how much
// a tree needs in it, and what would be lost on the way into it (the fit).
//
// Formats live in sub-packages (ext, xfs, btrfs) that register themselves when
// imported. Everything but Scan, SetLabel and the helpers below them is pure:
// bytes in, struct or error out. mkfs and fsck are the real tools; a format only
// composes their arguments.
//
// Non-goals: writing any format, reading file data, deciding what to do about a
// finding.
//
// Invariants: a Probe that is not sure says so and does not guess (I8); a Scan
// delivers every inode in use or fails (I5); an object that a format cannot hold
// exactly is a Loss with a class, never a silent clamp.
package formats
