// Package demo shows a whole migration on volumes of its own: an ext4 volume with a
// database and a churn of files on it becomes XFS and goes back, through the real
// command, and every write that was acknowledged is counted afterwards.
//
// The application is a child process that knows nothing of fsmigrate. What it
// acknowledged is in ledgers outside both volumes; the read-back compares the volume
// with them and uses no code that copies. Latency is measured from the moment a
// write was due, not from when it could begin, so a pause is seen by every write
// that had to wait for it.
//
// It is no benchmark: bench is. It leaves nothing behind but its pictures, also
// when it fails or is interrupted, and removes what an earlier one left that was
// killed.
package demo
