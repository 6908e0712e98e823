// Package formattest is the contract that every format keeps, as one suite of
// tests over real volumes: loop devices, the real mkfs, the kernel's own driver.
//
// It needs root and loop devices and fails without them. Everything it makes is
// undone when the test ends, also when it fails.
package formattest
