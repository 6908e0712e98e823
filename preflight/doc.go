// Package preflight looks at both sides of a migration before it starts: it makes
// the plan, and proves that the plan can work here and now.
//
// Every check is a value (migrate.Check): what was found, what is needed, the verdict and
// the remedy. Nothing is changed on either volume: the kernel's ability to mount the
// result is tried on a small image of its own in the state directory.
//
// Non-goals: it decides nothing (the engine refuses), and it guards no later moment
// (the place looks again at the fence).
//
// Invariants: I5 (the fit counts every object that the target cannot represent),
// I7 (the source is only read), I8 (what cannot be found out is a refused check).
package preflight
