// Package oplog is what a workload says of its operations: when each was due, when it
// was done, and how large it was.
//
// Lines on the workload's standard output, at most 64 KiB each:
//
//	ready                           the service works; what was due before has to wait no longer
//	op DUE END [BYTES]              an operation, in nanoseconds of Unix time
//	fail DUE END [TEXT]             one that failed, and why
//	lat MICROSECONDS [BYTES]        one that ended now, for a program that has no schedule of its own
//	note TEXT                       something for the report
//	# anything                      ignored, as are blank lines
//
// DUE is when the operation should have begun by its schedule, not when it did: a program
// that waits for a slow disk and only then looks at its watch leaves out all the operations
// that would have been slow, too (coordinated omission). For programs that cannot say it,
// Backfill adds those that are missing.
//
// The parsers take what other programs wrote and have no panic, whatever that is. Nothing
// here touches the system.
package oplog
