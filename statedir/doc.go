// Package statedir keeps the durable state of migrations: one directory each,
// below a root, owned by whoever runs fsmigrate and closed to everybody else.
//
//	ROOT/ID/                0700
//	  plan.yaml             the plan, never rewritten
//	  state.json            phase, timeline, report; replaced as a whole
//	  switch/0000.json      the switch records: the highest number is in force
//	  switch/0001.json
//	  switch/0001.doubt     exists when record 1 may or may not outlive a power cut
//	  audit.jsonl           append-only
//	  lock                  flock of the engine; holds its pid
//	  settle.lock           flock of whoever settles (engine, watchdog, boot)
//
// I1 rests on the switch directory. A record is written to a file of its own,
// synced, and then linked to its number, which link(2) lets only one process do; then
// the directory is synced. A record is one line of JSON and one line "sha256 HEX"
// over it. Records are never changed or removed.
//
// I8: a record that is torn, missing from the sequence or in doubt, and a state that
// contradicts the record, are answered with *migrate.Ambiguous: the exact state, and
// the command that decides it. That command commits a record by the operator, which
// supersedes everything below it.
//
// Replacement of files is done here (file, fsync, rename, fsync of the directory) and
// not through a library: the ones at hand do not sync the directory, and could not be
// failed at the k-th call.
//
// Non-goals: the control socket, locking of devices, knowing what a phase means.
package statedir
