// Package migrate is the engine: it takes a plan and a Subject (data that
// changes its format while it is in use) through the phases, survives its own
// death at any instant, and never loses track of who is the truth.
//
// It knows only the interfaces Subject, Store, Service and Watchdog. It does not
// touch the operating system, does not log or print (Events does), and knows no
// format. Run in run.go is the loop; each phase is one method beside it.
//
// Invariants kept here:
//
//   - I1: nothing but the newest switch record says who is the truth. An attempt
//     at a cutover owns one record number; whoever commits that number first (the
//     engine "the other side", the watchdog or a recovery "unchanged") decides, and
//     everybody else does what the record says.
//   - I5: no record while the proof behind the fence leaves an object neither
//     equal nor waived.
//   - I6: a failing drain is undone, never repeated behind the same fence.
//   - I8: records and state that contradict each other are *Ambiguous and end the
//     run with nothing done.
//   - I9: a failure of the copy ends, pauses or aborts the migration; the service
//     is started on the truth before anything else is tried.
//
// An interrupted run is resumed by running again: Run reads the record, settles it,
// starts the service if it was stopped, and only then looks at the phase.
package migrate
