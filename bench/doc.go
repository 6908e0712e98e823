// Package bench measures fsmigrate beside what people use today: rsync, cp and tar.
//
// Every number is the median of several runs that are interleaved, so that a machine
// that gets slower does so for all; the spread, what was read from the device, and the
// processor time are printed beside it. Ratios are the result, seconds only explain them.
//
// Volumes are images on loop devices with direct I/O, so that the cache of the file
// below takes no part. Before each cold run the source is unmounted and mounted and the
// caches are dropped; what a run then reads from the device is in the report, and says
// whether it was cold. Every tool ends with the target synced inside the timed part.
//
// fsmigrate's first copy is timed from the beginning of the walk until the shadow is
// durable, digests and journal included, in a process of its own; the volume is planned
// and the target made before that, and the caches are dropped again in between, since
// planning looks at every file.
package bench
