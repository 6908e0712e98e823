// Package pledge is the application of the power-cut tests: it changes files, makes
// every change durable as the manual pages say one must (fsync of the file, fsync of
// the directories whose entries changed, msync of what is mapped), and only then says
// that it is done. Whatever it said before a cut has to be there after it.
//
// What it is about to do stands in a log outside of every volume, a line of JSON for
// each operation, before it does it. What is done it says by a mark in the log of
// writes (blockdev/record): "ack WORKER NUMBER". So the order of the two is that of the
// machine, and no clock is compared.
//
// Each worker has a directory of its own and does one operation at a time. After a cut
// there is therefore at most one operation of each worker that may be there, or not, or in
// part: the first that it did not acknowledge. Everything else is exactly known, and a
// file that nobody made, or that was removed, is as wrong as one that is missing.
//
// With Lie it acknowledges without syncing anything: what judges it must find that out.
package pledge
