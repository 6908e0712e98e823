// Package blocktest makes real volumes for tests: sparse images, loop devices,
// file systems and mounts. Everything it makes it undoes through t.Cleanup, in
// the reverse order and whatever the test left behind: mounts stacked on a
// mount point are all detached, and a loop device that stays is a failure of the test.
//
// The tests that use it need root. It fails them without, it never skips them.
package blocktest
