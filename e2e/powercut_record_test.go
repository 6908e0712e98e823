package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"golang.org/x/sys/unix"
)

// powerRig is a migration on recorded disks: the volume, the spare, and a third one that
// holds the state directory and fstab, as the root file system of a machine would.
type powerRig struct {
	*rig
	disks   *disks
	root    string // where the third is mounted
	history *pledge.History
	log     *record.Log
	marks   []mark // those of the log, in order
	bootID  string // a file in the place of the kernel's
	judging string // the cut
	first   *firstCut
}

// firstCut is the cut after which a recording began, of what was done to recover from it.
type firstCut struct {
	of  *powerRig
	cut record.Cut
}

type mark struct {
	at   int // the entry's number
	text string
}

// newPowerRig makes the disks and mounts the source and the third, which has a file system of
// the kind root.
func newPowerRig(t *testing.T, p pair, root string) *powerRig {
	t.Helper()
	r := &powerRig{rig: &rig{Lab: vol.New(t), t: t, pair: p}}
	r.root, r.dir, r.report = r.Path("root"), r.Path("data"), r.Path("report.json")
	r.state, r.fstab = r.Path("root/state"), r.Path("root/fstab")
	r.ownBootID()
	r.disks = newDisks(t, r.Lab)
	size := func(spec string, least int) int {
		switch fstypeOf(spec) {
		case "xfs", "btrfs":
			return 320 // the least that mkfs makes without complaint
		}
		return least
	}
	source := size(p.spec, 128)
	r.disks.record(source, max(size(p.to, 128), source+32), size(root, 192))
	r.attached()
	vol.Mkfs(t, p.spec, r.source)
	vol.Mkfs(t, root, r.disks.loops["state"])
	r.Mount(r.source, "data")
	r.Mount(r.disks.loops["state"], "root")
	uuid := strings.TrimSpace(vol.Run(t, "blkid", "-p", "-s", "UUID", "-o", "value", r.source))
	line := fmt.Sprintf("# the lab's own\nUUID=%s %s %s defaults 0 2\n", uuid, r.dir, fstypeOf(p.spec))
	if err := os.Mkdir(r.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.fstab, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	vol.Run(t, "sync", "-f", r.fstab)
	t.Cleanup(func() {
		if r.engine != nil {
			r.engine.kill()
		}
		for _, p := range vol.Processes(r.Dir) {
			if strings.HasPrefix(p.Args[0], programs.pledge) || strings.HasPrefix(p.Args[0], programs.fsmigrate) {
				_ = unix.Kill(p.PID, unix.SIGKILL)
			}
		}
		if t.Failed() {
			t.Logf("the last cut was %q", r.judging)
			r.explain()
		}
	})
	return r
}

// attached names the devices after the disks were started.
func (r *powerRig) attached() {
	r.source, r.spare = r.disks.loops["source"], r.disks.loops["shadow"]
}

// ownBootID puts a file in the place of the kernel's boot id: after a power cut it is
// another one, and what fsmigrate trusts depends on it.
func (r *powerRig) ownBootID() {
	r.t.Helper()
	if !strings.Contains(r.Dir, "/fsmigrate-lab.") {
		r.t.Fatal("this test hides the kernel's boot id, and does so only in the lab's mount namespace: run it by scripts/inlab.sh")
	}
	const kernels = "/proc/sys/kernel/random/boot_id"
	r.bootID = r.Path("boot_id")
	r.newBoot()
	if err := unix.Mount(r.bootID, kernels, "", unix.MS_BIND, ""); err != nil {
		r.t.Fatalf("hide the boot id: %v", err)
	}
	r.t.Cleanup(func() {
		if err := unix.Unmount(kernels, 0); err != nil {
			r.t.Errorf("show the boot id: %v", err)
		}
	})
}

var boots int

func (r *powerRig) newBoot() {
	r.t.Helper()
	boots++
	// In place: what is mounted is this inode.
	if err := os.WriteFile(r.bootID, fmt.Appendf(nil, "%08x-0000-4000-8000-%012x\n", os.Getpid(), boots), 0o444); err != nil {
		r.t.Fatal(err)
	}
}

func (r *powerRig) pledgeArgs(seed uint64, extra ...string) []string {
	return append([]string{"--dir", r.dir, "--log", r.Path("pledge.log"), "--marks", r.disks.marks(), "--pidfile", r.Path("pledge.pid"),
		fmt.Sprintf("--seed=%d", seed)}, extra...)
}

// writeHook writes the application's stop and start, which say in the log when they begin and
// end, and do nothing once the application is not there any more: when states are judged.
func (r *powerRig) writeHook(seed uint64, extra ...string) {
	r.t.Helper()
	text := fmt.Sprintf(`#!/bin/sh
[ ! -e %[1]s/quiet ] || exit 0
printf "hook $1" >%[2]s
%[3]s $1 %[4]s || exit 1
printf "hook $1 done" >%[2]s
`, r.Dir, r.disks.marks(), programs.pledge, strings.Join(r.pledgeArgs(seed, extra...), " "))
	if err := os.WriteFile(r.Path("hook"), []byte(text), 0o700); err != nil {
		r.t.Fatal(err)
	}
}

// scene is a migration that is recorded: of what, under which application, to which end.
type scene struct {
	pair
	root string // the file system that holds the state directory
	mix  string // of e2e/pledge
	end  string // rollback, finalize or abort
}

func (s scene) String() string { return s.name + "_" + s.mix + "_" + s.end + "_on_" + s.root }

// roots are the file systems of the state directory. They differ in what an fsync of one file
// takes along of what was done before: with ext4 and xfs nearly all, with btrfs little.
var roots = []string{"ext4", "btrfs", "xfs"}

// recorded runs a whole migration under the application.
func (r *powerRig) recorded(seed uint64, s scene) {
	t := r.t
	t.Helper()
	// What is there already is synced once, not piece by piece.
	vol.Run(t, programs.pledge, append([]string{"run"}, r.pledgeArgs(seed, "--mix", s.mix, "--ops", "260", "--lie")...)...)
	vol.Run(t, "sync", "-f", r.dir)
	r.writeHook(seed, "--mix", s.mix, "--rate", "40", "--unsynced", unsyncedDir, "--database", databaseDir)
	vol.Run(t, r.Path("hook"), "start")
	r.disks.mark("begin")
	stop := r.markPhases()
	defer stop()
	r.background(nil, r.runArgs("--stop", r.Path("hook")+" stop", "--start", r.Path("hook")+" start", "--pause-budget", "20s")...)
	r.waitPhase(toHold, "hold")
	r.moreOperations(60)
	if s.end != "abort" {
		r.cutOver()
		r.moreOperations(90)
	}
	r.must([]string{s.end, id}, 0, 5, 6)
	r.engine.code(t, toEnd)
	r.disks.mark("ended")
	r.moreOperations(40)
	vol.Run(t, r.Path("hook"), "stop")
	r.disks.mark("end")
	stop()
	r.finish()
}

// markPhases puts a mark into the log for each phase that the migration's state says, a
// moment after it says so, until stop is called.
func (r *powerRig) markPhases() (stop func()) {
	r.t.Helper()
	marks, err := os.OpenFile(r.disks.marks(), os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer marks.Close()
		again := time.NewTicker(time.Millisecond)
		defer again.Stop()
		for last := ""; ctx.Err() == nil; <-again.C {
			if phase := r.savedPhase(); phase != last && phase != "" {
				last = phase
				if _, err := fmt.Fprintf(marks, "phase %s", phase); err != nil {
					r.t.Errorf("mark phase %s: %v", phase, err)
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}

var phaseInState = regexp.MustCompile(`"phase":\s*"([a-z-]+)"`)

// savedPhase reads the phase from the state directory, without a write to it: no atime.
func (r *powerRig) savedPhase() string {
	f, err := os.OpenFile(filepath.Join(r.state, id, "state.json"), os.O_RDONLY|unix.O_NOATIME, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(f)
	if m := phaseInState.FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return ""
}

// moreOperations waits until the application began so many more operations.
func (r *powerRig) moreOperations(n int) {
	r.t.Helper()
	count := func() int {
		b, _ := os.ReadFile(r.Path("pledge.log"))
		return bytes.Count(b, []byte("\n"))
	}
	want := count() + n
	if !vol.Eventually(60*time.Second, func() bool { return count() >= want }) {
		out, _ := os.ReadFile(r.Path("pledge.log.out"))
		r.t.Fatalf("the application does not get on: %s", out)
	}
}

// finish takes the disks away and reads what was recorded.
func (r *powerRig) finish() {
	t := r.t
	t.Helper()
	if err := os.WriteFile(r.Path("quiet"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.unmountAll()
	r.disks.stop()
	r.engine = nil
	var err error
	if r.log, err = record.OpenLog(r.disks.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.log.Close() })
	if r.history, err = pledge.ReadHistory(r.Path("pledge.log")); err != nil {
		t.Fatal(err)
	}
	for n, e := range r.log.Entries {
		if e.Has(record.FlagMark) {
			r.marks = append(r.marks, mark{n, e.Mark})
		}
	}
	all := len(r.log.Entries)
	t.Logf("%d entries, %d operations and %d rows acknowledged, phases %v", all, sum(r.acked(all)), r.rows(all), r.phaseNames())
}

// acked is how many operations of each worker were acknowledged in the first n entries.
func (r *powerRig) acked(n int) []int {
	if r.first != nil {
		return r.first.of.acked(r.first.cut.Entries)
	}
	acked := make([]int, r.history.Workers())
	for _, m := range r.marks {
		var w, k int
		if m.at < n && strings.HasPrefix(m.text, "ack ") {
			if _, err := fmt.Sscanf(m.text, "ack %d %d", &w, &k); err != nil || w >= len(acked) {
				r.t.Fatalf("mark %q: %v", m.text, err)
			}
			acked[w] = k
		}
	}
	return acked
}

// rows is how many rows of the database were acknowledged in the first n entries.
func (r *powerRig) rows(n int) (last int64) {
	if r.first != nil {
		return r.first.of.rows(r.first.cut.Entries)
	}
	for _, m := range r.marks {
		if m.at < n && strings.HasPrefix(m.text, "row ") {
			if _, err := fmt.Sscanf(m.text, "row %d", &last); err != nil {
				r.t.Fatalf("mark %q: %v", m.text, err)
			}
		}
	}
	return last
}

// phaseSpans are the parts of the log in which each phase was the saved one.
func (r *powerRig) phaseSpans() map[string][]span {
	spans := map[string][]span{}
	last, from := "", 0
	for _, m := range append(slices.Clone(r.marks), mark{len(r.log.Entries), "phase "}) {
		if phase, is := strings.CutPrefix(m.text, "phase "); is {
			if last != "" {
				spans[last] = append(spans[last], span{from, m.at})
			}
			last, from = phase, m.at
		}
	}
	return spans
}

// span is a part of the log: cuts behind from entries, or more, up to to.
type span struct{ from, to int }

func (r *powerRig) phaseNames() []string { return slices.Sorted(maps.Keys(r.phaseSpans())) }

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

func (r *powerRig) unmountAll() {
	r.t.Helper()
	for _, dir := range []string{r.dir, r.root} {
		if !vol.Eventually(20*time.Second, func() bool {
			for range vol.Mounts(dir) {
				_ = unix.Unmount(dir, 0)
			}
			return len(vol.Mounts(dir)) == 0
		}) {
			r.t.Fatalf("%s cannot be unmounted", dir)
		}
	}
}

var promise = regexp.MustCompile("^(ack|row|image) ")

// during names the last mark but acknowledgments before a cut.
func (r *powerRig) during(n int) string {
	last := "mkfs"
	if r.first != nil {
		last = fmt.Sprintf("boot after cut %v during %q", r.first.cut, r.first.of.during(r.first.cut.Entries))
	}
	for _, m := range r.marks {
		if m.at < n && !promise.MatchString(m.text) {
			last = m.text
			if r.first != nil {
				last += fmt.Sprintf(", resumed after cut %v", r.first.cut)
			}
		}
	}
	return last
}
