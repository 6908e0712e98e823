// Package host keeps an engine running in this process and lets the world see it: the
// control socket, a terminal or a pipe, systemd, the metrics file, the report.
//
// The engine's goroutine only puts events into queues. A terminal stopped with Ctrl-S,
// a pipe that nobody reads and a slow client cost events of progress, never the
// migration's time (I9).
//
// Every goroutine that Run starts has ended when Run returns.
package host
