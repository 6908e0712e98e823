package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// badDay is a row of docs/bad-days.md.
type badDay struct {
	condition, phase, outcome string
	exit                      int
	truth, message, hint      string // the message and the hint contain these words
}

// badDays is the table. Every row is tried by one of the tests below, and the document is
// compared with it, so that neither rots.
var badDays = []badDay{
	{"SOURCE is not a mount point", "plan", "refuse", 3, "source", "is not a mount point", "findmnt"},
	{"SOURCE is `/`", "plan", "refuse", 3, "source", "the root volume", "rescue system"},
	{"SOURCE is a bind mount of a directory", "plan", "refuse", 3, "source", "shows only /dir", "the mount point of the whole volume"},
	{"SOURCE is a subvolume", "plan", "refuse", 3, "source", "shows only /inner", "the mount point of the whole volume"},
	{"SOURCE has subvolumes below it", "preflight", "refuse", 3, "source", "left behind (inner)", "--waive subvolume"},
	{"SOURCE is read-only", "preflight", "refuse", 3, "source", "mounted read-only", "copy it"},
	{"SOURCE has errors recorded", "preflight", "refuse", 3, "source", "errors recorded in its superblock", "e2fsck"},
	{"SOURCE is mounted a second time", "preflight", "refuse", 3, "source", "also mounted at", "unmount them"},
	{"a loop device over a file on SOURCE", "preflight", "refuse", 3, "source", "kernel-holders", "losetup -d"},
	{"SPARE is mounted", "preflight", "refuse", 3, "source", "in use: mount", "unmount or release it"},
	{"SPARE is SOURCE's device", "preflight", "refuse", 3, "source", "is the source itself", "name another device"},
	{"SPARE is held by a process", "preflight", "refuse", 3, "source", "spare-free", "unmount or release it"},
	{"SPARE is too small", "preflight", "refuse", 3, "source", "space", "use a larger spare"},
	{"SPARE bears a signature", "preflight", "refuse", 3, "source", "signatures: ext4", "use --wipe"},
	{"SPARE is a loop over a file on SOURCE", "preflight", "refuse", 3, "source", "on the source", "use another device"},
	{"SPARE is neither a device nor file:PATH,size=SIZE", "plan", "refuse", 2, "source", "bad --spare", "file:PATH,size=SIZE"},
	{"state directory on SOURCE", "preflight", "refuse", 3, "source", "is on the source", "another volume"},
	{"state directory on SPARE", "preflight", "refuse", 3, "source", "is on the spare", "another volume"},
	{"state directory in memory", "preflight", "refuse", 3, "source", "is in memory", "a directory on a disk"},
	{"state directory unwritable", "preflight", "refuse", 3, "source", "read-only file system", "--state"},
	{"state directory too small", "preflight", "refuse", 3, "source", "journal-space", "free space there"},
	{"SOURCE has more in it than the target can ever hold", "plan", "refuse", 4, "source", "at most 4.0 TiB", "another format"},
	{"unknown format", "plan", "refuse", 2, "source", "zfs", "known formats"},
	{"unknown format option", "plan", "refuse", 2, "source", "speed", "fsmigrate formats"},
	{"a tool is missing", "preflight", "refuse", 3, "source", "not installed", "apt-get install xfsprogs"},
	{"a tool is too old", "preflight", "refuse", 3, "source", "3.2.1", "install a newer xfsprogs"},
	{"the kernel cannot mount the result", "preflight", "refuse", 3, "source", "kernel-mounts", "use a newer kernel"},
	{"the plan drifted", "preflight", "refuse", 3, "source", "source.label: planned nothing, found drifted", "make a new plan"},
	{"a second run on the same source", "plan", "refuse", 3, "source", "belongs to migration t1", "fsmigrate status t1"},
	{"another mount of the source appears", "hold", "refuse", 3, "source", "elsewhere", "unmount what is listed"},
	{"a writer never closes", "hold", "hold", 3, "source", "held-open", "stop or unmount what is listed"},
	{"stop fails", "cutover", "hold", 1, "source", "stop", ""},
	{"stop hangs", "cutover", "hold", 1, "source", "stop", ""},
	{"start fails", "cutover", "rollback", 6, "source", "the service did not start", ""},
	{"start hangs", "cutover", "rollback", 6, "source", "the service did not start", ""},
	{"health fails", "cutover", "rollback", 6, "source", "the service is not healthy", ""},
	{"health hangs", "cutover", "rollback", 6, "source", "the service is not healthy", ""},
	{"SIGTERM before the cutover", "hold", "stop", 7, "source", "stopped in hold", "fsmigrate resume t1"},
	{"SIGTERM during the first walk", "copy", "stop", 7, "source", "stopped in copy", "fsmigrate resume t1"},
	{"SIGTERM between fence and switch record", "cutover", "stop", 7, "source", "stopped in hold", "fsmigrate resume t1"},
	{"SIGTERM after the switch record", "cutover", "stop", 7, "shadow", "stopped in reverse", "fsmigrate resume t1"},
	{"SIGTERM between fence and switch record, on the way back", "rollback", "stop", 7, "shadow", "stopped in reverse", "fsmigrate resume t1"},
	{"SIGTERM after the switch record of the way back", "rollback", "rollback", 6, "source", "rolled back, the source is the truth", ""},
	{"SIGTERM after the cutover", "reverse", "stop", 7, "shadow", "stopped in reverse", "fsmigrate resume t1"},
	{"abort after the cutover", "reverse", "refuse", 3, "shadow", "abort is not possible", "use rollback"},
	{"SPARE full in the middle, enlarged", "hold", "pause", 0, "source", "the spare is full", "fsmigrate resume t1"},
	{"SPARE full in the middle, given up", "hold", "abort", 5, "source", "the spare is full", "fsmigrate abort t1"},
	{"what lies below SPARE is full", "hold", "pause", 0, "source", "what lies below it is full", "make room in the pool or volume below"},
	{"I/O errors on SPARE", "prepare to cutover", "abort", 5, "source", "the spare failed; the source is untouched", "use another spare"},
	{"SPARE hangs", "copy, hold", "goes on", 0, "source", "", ""},
	{"SPARE hangs in the cutover", "cutover", "hold", 1, "source", "deadline has passed", "see the kernel log"},
	{"the old volume fails", "reverse", "goes on", 0, "shadow", "the old volume failed; the new one is untouched", ""},
	{"I/O errors on SOURCE", "copy", "hold", 3, "source", "victim", "waive the class"},
	{"a failed write of the application met by us", "hold", "hold", 3, "source", "source-sync-error", "check the kernel log"},
	{"state directory full in the middle", "hold", "stop", 7, "source", "no space left", "fsmigrate resume t1"},
	{"the journal is over its quota", "any", "goes on", 0, "source", "the journal is coarse now", "passes take longer"},
	{"objects appear, change type and vanish during the walk", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"names with newlines and invalid UTF-8", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"a directory of 500,000 entries", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"depth beyond PATH_MAX", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"a file of 1,000,000 holes", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"immutable and append-only flags", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"hard links re-linked across directories during the copy", "copy", "goes on", 0, "shadow", "0 differences", ""},
	{"inode numbers reused within a second", "copy", "goes on", 0, "shadow", "0 differences", ""},
}

// triedDays are the rows that a test judged.
var triedDays = map[string]bool{}

func dayOf(t *testing.T, condition string) badDay {
	t.Helper()
	for _, d := range badDays {
		if d.condition == condition {
			triedDays[condition] = true
			return d
		}
	}
	t.Fatalf("the table has no row %q", condition)
	return badDay{}
}

// judge compares what a command did with the row.
func (d badDay) judge(t *testing.T, code int, out string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	if code != d.exit {
		t.Errorf("%s: exit %d, want %d\n%s", d.condition, code, d.exit, out)
		return
	}
	for _, words := range []string{d.message, d.hint} {
		if !strings.Contains(strings.ToLower(flat), strings.ToLower(words)) {
			t.Errorf("%s: %q is not said:\n%s", d.condition, words, out)
		}
	}
	if code != 0 && code != 5 && code != 6 && !strings.Contains(out, "hint: ") {
		t.Errorf("%s: there is no hint:\n%s", d.condition, out)
	}
}

const badDaysDoc = "../docs/bad-days.md"

// line is the row as the document has it.
func (d badDay) line() string {
	cell := func(s string) string {
		if s == "" {
			return "–"
		}
		return s
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", d.condition, d.phase, d.outcome, strconv.Itoa(d.exit), d.truth, cell(d.message), cell(d.hint))
}

// The document has these rows, in this order, and no other. FSMIGRATE_UPDATE=1 rewrites them.
func TestBadDaysDocument(t *testing.T) {
	text, err := os.ReadFile(badDaysDoc)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, d := range badDays {
		want = append(want, d.line())
	}
	head, rest, found := strings.Cut(string(text), "|---|---|---|---|---|---|---|\n")
	if !found {
		t.Fatal("the document has no table")
	}
	tail := ""
	for line := range strings.Lines(rest) {
		if tail == "" && strings.HasPrefix(line, "|") {
			got = append(got, strings.TrimSuffix(line, "\n"))
			continue
		}
		tail += line
	}
	if strings.Join(got, "\n") == strings.Join(want, "\n") {
		return
	}
	if os.Getenv("FSMIGRATE_UPDATE") == "1" {
		text := head + "|---|---|---|---|---|---|---|\n" + strings.Join(want, "\n") + "\n" + tail
		if err := os.WriteFile(badDaysDoc, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s differs from the table of this test (FSMIGRATE_UPDATE=1 rewrites it)", badDaysDoc)
}
