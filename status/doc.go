// Package status is what people and monitors read of a migration: the page at three
// in the morning, the plan to review, tables, progress on a terminal, lines and JSON
// elsewhere, and a metrics file.
//
// It renders values of package migrate and knows nothing that is not in them: what
// is true is decided there, how it reads is decided here. Everything that comes from
// a volume (paths, labels) is quoted where it could move a terminal's cursor.
//
// Non-goals: logging, asking, deciding.
package status
