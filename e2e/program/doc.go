// Package program is the application of the metamorphic runs: a random program of which
// every step, and every answer that a sound volume gives to it, follows from the seed
// alone. Run with no migration, with one, with ten, with crashes in between, it has to
// write the same transcript each time and leave the same tree.
//
// Each worker has a directory of its own and does one operation at a time, so no answer
// depends on who came first. Half of the operations change something, half look: at
// content, attributes, entries, link targets, extended attributes, and at what must fail.
// An answer is a line of the worker's transcript, which lies outside of the volume.
//
// A program that was killed goes on behind the last line of its transcript. The operation
// that follows may have been done already, or in part: it is done in a way that comes to
// the same whether it was or not.
//
// What formats answer differently is left out: the size and link count of directories,
// blocks, the order of entries, and times that were not set by the program itself.
package program
