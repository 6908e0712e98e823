// Package watchdog owns a cutover's one deadline in a process of its own.
//
// The engine arms it before the fence: Client.Arm starts `fsmigrate watchdog` in a
// session of its own, with one end of a socket as its standard input, and returns when
// that process has said that it is armed. From then on, whichever comes first decides:
//
//   - the engine says "disarm": the record is there and settled, the watchdog ends;
//   - the engine dies (its end of the socket closes): the watchdog commits "truth
//     unchanged" under the attempt's record number, unless there is a record of that
//     number, settles what is in force and starts the service;
//   - the deadline passes: the same, unless there is a record of that number, which
//     leaves only the engine's death to act on.
//
// Store.Commit lets one of several processes win (I1), so an engine that was stopped
// or hung meanwhile finds its record lost when it wakes, and steps back: SwapIn
// refuses because the fence is gone. The watchdog does not kill it: a process in an
// uninterruptible system call does not die either, and what it may still do is
// guarded by the record, not by its absence.
//
// It holds a lock on watchdog.lock for its whole life. That is how Disarm, also of a
// later engine, knows that none is settling any more, and it frees itself when the
// watchdog is killed. When it is killed the engine hears it at once (Arm's lost): before
// the record it undoes what it began, because nobody would do so if it hung now, and
// after it there is only the rest to finish.
//
// Under systemd the unit says KillMode=process, so that stopping or killing the engine
// leaves the watchdog alone. Its score for the out-of-memory killer is -900 and its
// memory is locked: it must act when a stuck volume makes memory scarce.
//
// When the commit is ambiguous it does nothing (I8): both volumes stay read-only.
package watchdog
