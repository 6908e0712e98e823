// Package disrupt measures what an application feels while the volume below it changes its
// format: with fsmigrate, and with what people do today.
//
// A run makes a volume, fills it, drops the caches, starts the application (package work,
// or a command of the user's), lets it have the machine for a while (phase before), has a
// mover bring the data to the new format (copying), swaps the volumes with the application
// stopped (cutover), and watches it on the new volume (after). Everything happens in one
// process group, in one mount namespace of its own, one run after the other; of one
// scenario and workload each round begins with another mover, so that a machine that gets
// slower does so for all.
//
// The mover's processes are metered: processor time of the whole tree, the most memory
// that they had together. Bytes are read from the counters of the devices: source, spare
// and the one that holds fsmigrate's state, which is a volume for that reason only.
//
// Invariants: nothing but what is below the scratch directory, or the two blank devices
// that the user named, is written; when Run returns, also after a signal, no mount, loop,
// process or file of it is left; a number is measured or absent.
package disrupt
