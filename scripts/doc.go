// Package scripts has no code: what lies beside it are the scripts that make calls, and
// here are tests of those that decide something.
package scripts
