// Package service stops and starts the application around the fence, and keeps what
// must outlive the engine: hooks that are killed as a group, and, in package
// watchdog below it, the process that owns a cutover's deadline.
//
// A hook is a command line given to sh -c, or systemctl on a unit. It runs in its own
// process group with a small environment of its own (PATH, HOME, LANG and
// FSMIGRATE_ID, FSMIGRATE_PHASE, FSMIGRATE_TRUTH), standard input empty, and standard
// output and error appended to hooks.log in the state directory: a file and no pipe,
// because what a start hook leaves in the background inherits it. With a pipe, the
// application would keep us waiting for its end, or die of SIGPIPE after ours.
//
// A hook survives the engine. Before it runs its command it writes who it is to
// hook.pid; whoever runs the next hook ends the one that an engine left behind, so
// that a stop hook of before a crash and a start hook of after it do not run at the
// same time.
//
// Non-goals: deciding when, remembering the intent (migrate.State.Service does), and
// supervising the application.
package service
