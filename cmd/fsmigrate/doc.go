// Command fsmigrate changes the on-disk format of a mounted file system while it
// is in use.
//
// One file a command. A command names its Options, its help and its exit codes,
// and calls one function; it decides nothing. The engine is package migrate, what
// builds its parts is wire.go, what keeps it running in this process is package
// host, how it is spoken to from another one is package control, and what an
// operator reads is package status.
//
// Non-goals: policy, knowledge of formats, and anything that a program embedding
// the engine would want too.
//
// A failure prints nothing on the standard output and three lines on the other:
// what, why and a hint. A refusal never exits 0 (I8).
package main
