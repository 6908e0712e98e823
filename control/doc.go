// Package control lets one process speak to the engine of a migration that runs in
// another: a unix socket in the migration's state directory, one request a
// connection, lines of JSON.
//
// The client sends one Request line. The server answers with any number of Reply
// lines of type "alive" (every two seconds, so that a client can tell a long wait
// from a stuck engine) and "event", and one last line of type "done".
//
//	→ {"v":1,"do":"cutover","who":"fsmigrate cutover data"}
//	← {"v":1,"type":"event","data":{…}}
//	← {"v":1,"type":"done"}   or   {"v":1,"type":"done","error":{"kind":"refused","what":"…","hint":"…"}}
//
// control.sock (0600) takes every request from root and from the user the engine runs
// as, by SO_PEERCRED; ID.status.sock beside the directory (0660, group fsmigrate, where
// there is such a group) takes those that change nothing. A client that goes away ends its waiting,
// not what it asked for.
//
// Everything from the other side is bounded: a request line 4 KiB, a reply line
// 4 MiB, 32 connections, ten seconds to say something.
//
// Non-goals: other machines, other users, remembering requests.
package control
