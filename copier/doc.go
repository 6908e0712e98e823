// Package copier carries objects of a tree of files from one volume to another
// and compares them: attributes, data, holes, preallocation, shared extents.
//
// It decides nothing: which object is copied when, and what an error means for
// the migration, is its caller's business. To make that possible, errors say
// which side they met: *SourceError and *TargetError.
//
// Everything is relative to descriptors. An application works on the source
// during the walk and may plant symbolic links, renames and ".." races, so
// OpenBeneath never leaves the directory it was given, never follows a link and
// never crosses a mount; no path is ever resolved twice.
//
// It changes nothing on the source (I7): files are read with O_NOATIME, and the
// only calls that could write are fdatasync ones that the caller asked for.
// Nothing is trusted that the kernel does not promise: holes only after the
// caller synced the file (FACTS: an unflushed file shows holes over real data).
//
// What is called once per object does not allocate; a worker brings its own
// Buffers.
//
// Non-goals: no node map, no journal, no notion of a path beyond reporting.
package copier
