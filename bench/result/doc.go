// Package result is what a disruption benchmark found: the types that go into its JSON,
// and the statistics that they are made of.
//
// Latencies are in milliseconds, from when an operation was due until it was done. They
// are counted in HdrHistograms from 1 µs to a day with three digits; an operation belongs
// to the phase in which it was due, not to the one in which it ended: one that was due
// during the cutover is the cutover's, however late it came.
//
// Nothing that was not measured has a number: it is in NotRun, with the reason.
package result
