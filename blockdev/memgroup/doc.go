// Package memgroup keeps whoever makes the kernel remember many objects within the memory
// limit of the control groups that this process is in (versions 1 and 2).
//
// A group that is at its limit has its processes reclaim what they can, and kills one
// when that is nothing. Memory that a file system takes while it may not be called back
// (GFP_NOFS) can be reclaimed by everybody but by the one who takes it: xfs's
// bulkstat made a group run over although all of it was free to go. So the kernel is
// asked in time, by a call that may reclaim everything.
//
// It changes no setting of a group, and does nothing where none has a limit.
package memgroup
