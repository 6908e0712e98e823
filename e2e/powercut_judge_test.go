package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"golang.org/x/sys/unix"
)

// verdict is what was found out about a state.
type verdict struct {
	truth     string   // source or shadow: what the switch record in the state says
	phase     string   // what the state in it says; "" before the migration
	unmounted string   // the file system itself did not mount it: neither passed nor failed
	wrong     []string // violations
	revived   []string // names that the file system itself brought back: neither a violation nor right
	resumed   string   // how the migration ended that was resumed, if it was
}

func (v *verdict) bad(format string, a ...any) { v.wrong = append(v.wrong, fmt.Sprintf(format, a...)) }

// Directories of the application that its workers' history does not know.
const (
	unsyncedDir = "unsynced"
	databaseDir = "database"
)

// foreign is what is at the top of a volume and not the workers'.
var foreign = []string{"lost+found", ".fsmigrate-" + id, unsyncedDir, databaseDir}

// judgeCut brings up what a power cut left, as a boot would, and judges it. With resume it
// lets the migration go on to its end in it.
func (r *powerRig) judgeCut(cut record.Cut, resume bool) (v verdict) {
	r.t.Helper()
	r.judging = cut.String()
	r.newBoot()
	r.disks.start("serve", "--log", r.disks.log, "--cut", cut.String())
	r.attached()
	defer func() { r.unmountAll(); r.disks.stop() }()
	if err := r.mountRoot(); err != nil {
		v.unmounted = fmt.Sprintf("state directory: %v", err)
		return v
	}
	v.truth = r.recordedTruth(&v)
	device, other := r.source, r.spare
	if v.truth == "shadow" {
		device, other = other, device
	}
	if err := r.bootCut(); err != nil {
		if why := r.mountsAlone(device); why != nil {
			v.unmounted = fmt.Sprintf("%s: %v", v.truth, why)
		} else {
			v.bad("it does not boot: %v", err)
		}
		return v
	}
	r.judgePlace(&v, device, other)
	r.judgeVolume(&v, cut)
	r.judgeStatus(&v)
	if resume && len(v.wrong) == 0 {
		r.resumeCut(&v, cut)
	}
	r.judgeFsck(&v)
	return v
}

// mountRoot mounts the third disk, as the boot does before everything else.
func (r *powerRig) mountRoot() error {
	out, err := exec.Command("mount", r.disks.loops["state"], r.root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// recordedTruth reads the newest switch record by its name alone, and nothing of it but
// the one word.
func (r *powerRig) recordedTruth(v *verdict) string {
	names, _ := filepath.Glob(filepath.Join(r.state, id, "switch", "[0-9]*.json"))
	if len(names) == 0 {
		return "source"
	}
	sort.Strings(names)
	b, err := os.ReadFile(names[len(names)-1])
	var is struct {
		Truth string `json:"truth"`
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if err = errors.Join(err, json.Unmarshal([]byte(line), &is)); err != nil {
		v.bad("switch record %s cannot be read: %v: %q", filepath.Base(names[len(names)-1]), err, b)
	}
	return is.Truth
}

// bootCut mounts what fstab says, in the time that a boot has.
func (r *powerRig) bootCut() error {
	b, err := os.ReadFile(r.fstab)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[0][0] == '#' || f[1] != r.dir {
			continue
		}
		args := []string{"mount", "-t", f[2], "-o", f[3], f[0], f[1]}
		if f[2] == "fsmigrate" {
			args = []string{programs.mountHelper, f[0], f[1], "-o", f[3]}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		// What mount(8) remembers of an earlier state's devices is no older than a second and
		// not looked at again: a volume with another number was not found by its UUID.
		known := r.Path("blkid.tab")
		_ = os.Remove(known)
		cmd.Env = r.env("BLKID_FILE=" + known)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
		return nil
	}
	return fmt.Errorf("no entry for %s in fstab:\n%s", r.dir, b)
}

// mountsAlone says whether a file system can be mounted at all.
func (r *powerRig) mountsAlone(device string) error {
	dir := r.Path("alone")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if out, err := exec.Command("mount", device, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return unix.Unmount(dir, 0)
}

// judgePlace requires one mount, of the truth, that can be written to, and nobody on the
// other side (I1, I10).
func (r *powerRig) judgePlace(v *verdict, device, other string) {
	if n := len(vol.Mounts(r.dir)); n != 1 {
		v.bad("%d mounts at the volume's place", n)
		return
	}
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "-M", r.dir).Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != device {
		v.bad("%s is in place (%v), but the switch record says the %s, which is %s", got, err, v.truth, device)
	}
	if !exclusive(other) {
		v.bad("the side that is not the truth is in use")
	}
	probe := filepath.Join(r.dir, "probe")
	err = os.WriteFile(probe, []byte("x"), 0o600)
	if err = errors.Join(err, os.Remove(probe)); err != nil {
		v.bad("the truth cannot be written to: %v", err)
	}
}

// judgeVolume requires everything that was acknowledged, and nothing else.
func (r *powerRig) judgeVolume(v *verdict, cut record.Cut) {
	wrong, err := r.history.Judge(r.dir, r.acked(cut.Entries), foreign...)
	if err != nil {
		v.bad("the volume cannot be read: %v", err)
	}
	// btrfs brought such a name back in one of about a thousand cuts, on a source that nobody but
	// the application had written to: the file under its true name was right all the same.
	if r.fsType() == "btrfs" && len(wrong) > 0 && !slices.ContainsFunc(wrong, func(s string) bool { return !pledge.Revived(s) }) {
		v.revived, wrong = wrong, nil
	}
	if len(wrong) > 8 {
		wrong = append(wrong[:8], fmt.Sprintf("… and %d more", len(wrong)-8))
	}
	v.wrong = append(v.wrong, wrong...)
	v.wrong = append(v.wrong, pledge.JudgeRows(filepath.Join(r.dir, databaseDir), r.rows(cut.Entries))...)
}

// judgeStatus requires that an operator is told the truth.
func (r *powerRig) judgeStatus(v *verdict) {
	if _, err := os.Stat(filepath.Join(r.state, id, "switch", "0000.json")); err != nil {
		return // no migration was begun
	}
	s, err := r.status()
	v.phase, _ = s["phase"].(string)
	if err != nil {
		v.bad("status: %v", err)
	} else if s["truth"] != v.truth {
		v.bad("status says that the %v is the truth, it is the %s", s["truth"], v.truth)
	}
}

// judgeFsck unmounts the volume and lets its own checker read the truth.
func (r *powerRig) judgeFsck(v *verdict) {
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE,FSTYPE", "-M", r.dir).Output()
	f := strings.Fields(string(out))
	if err != nil || len(f) != 2 {
		v.bad("what is in place cannot be told: %v, %q", err, out)
		return
	}
	r.unmountAll()
	if err := oracle.Fsck(f[1], f[0]); err != nil {
		v.bad("%v", err)
	}
}
