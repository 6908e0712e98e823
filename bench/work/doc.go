// Package work is the applications of the disruption benchmark: what a service does to a
// volume, at a fixed rate, with the latency of every operation told in the lines of
// package oplog.
//
// Operation k is due at the epoch plus k intervals, whether or not those before it are
// done, and also while the application was stopped: nothing that was due is left out, and
// latency counts from then (no coordinated omission). A few workers take them in order;
// when all are busy, what is due waits, as requests to a service would.
//
// PostgreSQL and fio bring their own schedule or none. pgbench says when a transaction was
// due; what was due while it was stopped, and what fio did not begin while it waited, is
// filled in by whoever reads the lines.
//
// An application runs in a process of its own, is told to stop by a signal, finishes what
// it is at, and can be started again on a volume that has its files.
package work
