// Package churn is an application that is hard on a file system and knows
// exactly what it was promised.
//
// Several workers create, write, map, rename, link, dress and destroy objects on
// a volume. Every operation is logged outside the volume before it begins and
// after it was acknowledged, and applied to a model in memory; the log replays to
// the same model, so a churn that was killed can be judged too. Afterwards Check
// proves that a volume equals the model: every path, type, size, byte, mode,
// owner, mtime, xattr, ACL, capability, flag, link group, symlink target and
// device number, and nothing extra.
//
// Content is generated from a seed and an offset, so the log holds parameters
// only. Attributes are read back from the volume right after each operation,
// because a kernel derives many of them (set-id clearing, inherited ACLs); what
// was asked for is compared with what was read back at that moment.
//
// Namespace operations take the tree's lock exclusively. Operations on content
// open the object under the shared lock, let it go, and hold the object's own
// lock only: a rename overtakes a write in flight.
//
// An operation that began and was never acknowledged (the churn was killed, or
// the volume answered EIO) may have happened or not; both are accepted, and
// nothing between them.
package churn
