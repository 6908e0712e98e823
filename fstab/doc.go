// Package fstab reads and rewrites the table of file systems, fstab(5), one
// line at a time: every byte of the lines it was not asked about stays.
//
// While a migration lasts, the volume's entry is one of type fsmigrate, so that the
// next boot asks the switch record who is the truth (I1) and cannot mount
// the old volume by itself (I10). At the end the native entry comes back.
//
// A line is "spec dir type options dump pass", separated by blanks, with
// blank, tab, newline and backslash inside a field written as \040 \011 \012 \134.
// The file is replaced durably: new file → fsync → rename → fsync of the
// directory, with owner, mode and extended attributes kept and a backup beside it.
//
// It does not mount anything and knows no migration.
package fstab
