package main

import (
	"fmt"
	"go/token"
	"strconv"
	"strings"
)

// fault is an error of logic that somebody could make: in one function, old becomes
// new, where FAULT asks whether the mutant is active. Old has to be there exactly once.
type fault struct {
	name     string
	what     string // for people
	file, fn string
	old, new string
}

// faults are our own, beside the calls that are left out.
var faults = []fault{
	{"cleared-before-the-copy", "a unit counts as clean before it is copied", "shadow/pass.go", "pair.process",
		"rec, known, err := p.nodes.Get(u.Node)", "if FAULT { p.cleaned(u) }\n\trec, known, err := p.nodes.Get(u.Node)"},
	{"committed-before-the-syncs", "the journal says clean before either side is synced", "shadow/pass.go", "pair.checkpoint",
		"epoch := p.epoch.Add(1) - 1", "epoch := p.epoch.Add(1) - 1\n\tif FAULT { if err := p.journal.Commit(ctx, done, epoch, p.bootID); err != nil { return err } }"},
	{"lost-error-of-the-shadow", "a failed sync of the other side is no error", "shadow/pass.go", "pair.syncTo",
		"err != nil {", "err != nil && !FAULT {"},
	{"lost-error-of-the-source", "a failed sync of the truth is no error", "shadow/pass.go", "pair.syncFrom",
		"if err == nil {", "if err == nil || FAULT {"},
	{"sync-retried", "a sync of the truth that failed is tried again, and believed", "shadow/pass.go", "pair.syncFrom",
		"if p.syncFailed.Load() {", "if p.syncFailed.Load() && !FAULT {"},
	{"overflow-ignored", "lost events are no reason to look at everything", "shadow/watch_parse.go", "ParseEvents",
		"case ev.Overflow, mask&unix.FAN_Q_OVERFLOW != 0:", "case FAULT && mask&unix.FAN_Q_OVERFLOW != 0:\n\t\t\tcontinue\n\t\tcase ev.Overflow, mask&unix.FAN_Q_OVERFLOW != 0:"},
	{"watch-not-mended", "a watch that lost events goes on as if nothing were", "shadow/tree.go", "Tree.rewatch",
		"w == nil || !w.Lost()", "w == nil || !w.Lost() || FAULT"},
	{"mmap-store-missed", "a store through a mapping into a page that was dirty already is missed", "shadow/object.go", "pair.read",
		"if !sparse && !p.young(", "if !sparse && FAULT { return r, nil }\n\tif !sparse && !p.young("},
	{"hole-trusted", "holes are believed without fdatasync", "shadow/object.go", "pair.read",
		"sparse := r.attr.Blocks*512 < r.attr.Size", "sparse := r.attr.Blocks*512 < r.attr.Size\n\tif sparse && FAULT { r.synced = true; return r, nil }"},
	{"racy-stamp-trusted", "a stamp that a later change could bear too is believed", "shadow/pair.go", "pair.isRacy",
		"if p.from.stamp >= time.Second {", "if FAULT { return false }\n\tif p.from.stamp >= time.Second {"},
	{"generation-ignored", "an inode number that is used again is the old object", "shadow/prints.go", "PrintOf",
		"binary.LittleEndian.PutUint32(b[16:], gen)", "if !FAULT { binary.LittleEndian.PutUint32(b[16:], gen) }"},
	{"limbo-emptied-early", "limbo lets go of an object that lives", "shadow/limbo.go", "pair.dead",
		"unix.Close(fd)\n\treturn false, nil", "unix.Close(fd)\n\treturn FAULT, nil"},
	{"stale-digest-accepted", "content that is not what was read passes for it", "shadow/verify.go", "pair.compare",
		"if digest != rec.Digest {", "if digest != rec.Digest && !FAULT {"},
	{"reboot-not-noticed", "what was not durable before a power cut is believed after it", "shadow/journal_durable.go", "Journal.recoverMarks",
		"Rebooted: j.bootID != bootID", "Rebooted: j.bootID != bootID && !FAULT"},
	{"journal-not-synced", "the journal answers before it is on disk", "shadow/store.go", "Store.apply",
		"if sync {", "if sync && !FAULT {"},
	{"writable-before-the-record", "the shadow is writable in its place before the record", "shadow/place_swap.go", "Place.putBeneath",
		"p.attributes(to)|unix.MOUNT_ATTR_RDONLY)", "func() uint64 { if FAULT { return p.attributes(to) }; return p.attributes(to) | unix.MOUNT_ATTR_RDONLY }())"},
	{"settled-before-the-record", "the engine settles on the shadow, then records it", "migrate/cutover.go", "Migration.swap",
		"if err = a.approach(ctx); err == nil {", "if err = a.approach(ctx); err == nil {\n\t\tif FAULT { _ = m.opt.Subject.Settle(ctx, a.to) }"},
	{"other-mounts-allowed", "a mount that the swap does not reach is no reason to refuse the fence", "shadow/fence.go", "Place.refuseOthers",
		"if len(busy.Holders) > 0 {", "if len(busy.Holders) > 0 && !FAULT {"},
	{"stranger-mounted", "a device that bears another volume is mounted", "shadow/place_make.go", "Place.recognise",
		"if !strings.EqualFold(v.UUID, want) {", "if !strings.EqualFold(v.UUID, want) && !FAULT {"},
	{"proof-does-not-add-up", "objects that nobody verified are no reason against a cutover", "migrate/cutover.go", "attempt.drain",
		"if p.Different > 0 || p.Verified+p.Waived != p.Objects {", "if (p.Different > 0 || p.Verified+p.Waived != p.Objects) && !FAULT {"},
	{"deadline-ignored", "the engine knows no deadline", "migrate/cutover.go", "attempt.arm",
		"a.limited, end, a.cancel = withDeadline(ctx, a.m.clock, deadline)",
		"limit := deadline\n\tif FAULT { limit *= 1000 }\n\ta.limited, end, a.cancel = withDeadline(ctx, a.m.clock, limit)"},
	{"watchdog-sleeps", "the watchdog knows no deadline", "service/watchdog/watchdog.go", "Run",
		"defer timer.Stop()", "defer timer.Stop()\n\tif FAULT { timer.Stop() }"},
	{"lost-race-ignored", "the engine goes on although somebody else decided", "migrate/cutover.go", "attempt.record",
		"if got.Truth != a.to {", "if got.Truth != a.to && !FAULT {"},
	{"second-record-wins", "a record of a number that is taken answers as if it were in force", "statedir/record.go", "Dir.Commit",
		"return d.readRecord(r.Seq)", "if FAULT { return r, nil }\n\t\treturn d.readRecord(r.Seq)"},
	{"doubt-ignored", "a record that may not be durable is believed", "statedir/record.go", "Dir.newest",
		"if slices.Contains(names, doubtName(seq)) {", "if slices.Contains(names, doubtName(seq)) && !FAULT {"},
	{"torn-record-accepted", "a record is believed without its checksum", "statedir/record.go", "parseRecord",
		"if !bytes.Equal(data, seal(line)) {", "if !bytes.Equal(data, seal(line)) && !FAULT {"},
	{"ambiguity-acted-on", "the engine undoes a cutover of which nobody knows whether it is recorded", "migrate/settle.go", "attempt.undo",
		"if isAmbiguous(cause) {", "if isAmbiguous(cause) && !FAULT {"},
	{"started-unsettled", "the watchdog starts the service although the volume is not in place", "service/watchdog/watchdog.go", "dog.effect",
		"if err != nil { // the service", "if err != nil && !FAULT { // the service"},
	{"way-back-closes-in-silence", "the end of the way back is not reported", "migrate/reverse.go", "Migration.setWayBack",
		"if w.State != WayFull {", "if w.State != WayFull && !FAULT {"},
	{"loss-not-told", "what the old format cannot hold does not close the way back", "shadow/fitted.go", "pair.lose",
		"p.onLoss(path, l)", "if !FAULT { p.onLoss(path, l) }"},
}

// place finds where a fault goes. An anchor that is gone, or there twice, is an error: the
// fault would be tested no more.
func (f *fault) place(fset *token.FileSet, all []*code) (*source, *code, change, error) {
	for _, c := range all {
		for _, src := range c.files {
			if src.name != f.file {
				continue
			}
			for _, fn := range functions(src) {
				if nameOf(fn) != f.fn {
					continue
				}
				from, to := fset.Position(fn.Pos()).Offset, fset.Position(fn.End()).Offset
				body := string(src.text[from:to])
				if n := strings.Count(body, f.old); n != 1 {
					return nil, nil, change{}, fmt.Errorf("fault %s: %q is %d times in %s of %s, not once", f.name, f.old, n, f.fn, f.file)
				}
				ask := "mutantIs(" + strconv.Quote("fault-"+f.name) + ")"
				at := from + strings.Index(body, f.old)
				return src, c, change{at: at, cut: len(f.old), text: strings.ReplaceAll(f.new, "FAULT", ask)}, nil
			}
		}
	}
	return nil, nil, change{}, fmt.Errorf("fault %s: there is no %s in %s", f.name, f.fn, f.file)
}
