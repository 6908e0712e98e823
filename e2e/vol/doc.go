// Package vol gives black-box tests real volumes: sparse images on loop devices
// with direct I/O, formatted by the real mkfs and mounted below the test's own
// directory.
//
// Whatever a test started is gone when it ends, also when it failed: processes,
// stacked mounts, loops. Leftovers are cleaned up and then reported as failures,
// because a program that changes the format of a mounted volume must not litter.
//
// Nothing of the product is imported: a helper that shared code with it would
// share its mistakes.
package vol
