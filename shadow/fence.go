package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Fence makes the truth refuse writes, from everybody and by every road, with
// nothing lost: the kernel answers EBUSY while a writable descriptor, a shared writable
// mapping or an open unlinked file exists, and that is a *migrate.Busy error here,
// as is another mount of the volume. The truth is then as it was.
//
// Everything slow (looking at every process, syncing) happens before the
// superblock becomes read-only. Readers are told through Warn and stay: they
// read the past from then on.
func (p *Place) Fence(ctx context.Context, truth migrate.Side) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fenced = ""
	top, err := p.top(truth)
	if err != nil {
		return fmt.Errorf("fence the %s: %w", truth, err)
	}
	if err := p.healthy(truth, top); err != nil {
		return err
	}
	dir, err := openRoot(p.o.Dir, top.ID)
	if err != nil {
		return fmt.Errorf("fence the %s: %w", truth, err)
	}
	defer unix.Close(dir)
	if err := p.refuseOthers(truth); err != nil {
		return err
	}
	if err := p.refuseDetached(truth, dir); err != nil {
		return err
	}
	if err := p.tellReaders(truth, dir); err != nil {
		return err
	}
	if truth == migrate.Source {
		if err := p.mark(markMaybe); err != nil {
			return fmt.Errorf("mark the shadow: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.dropNames(top, dir)
	if top, err = p.top(truth); err != nil {
		return fmt.Errorf("fence the %s: %w", truth, err)
	}
	if err := p.healthy(truth, top); err != nil {
		return err
	}
	if err := p.step("fence-sync"); err != nil {
		return err
	}
	if err := blockdev.Syncfs(dir); err != nil {
		// Told here and nowhere else: the next attempt would succeed (I6).
		return fmt.Errorf("sync the %s: %w: %w", truth, errSourceSync, err)
	}
	if err := p.step("fence-superblock"); err != nil {
		return err
	}
	at := time.Now()
	if err := blockdev.SuperReadOnly(dir, true); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return p.busyWriters(truth, dir)
		}
		return fmt.Errorf("make the superblock of the %s read-only: %w", truth, err)
	}
	p.fencedAt = at
	defer func() {
		if err == nil {
			p.fenced = truth
		}
	}()
	if err := p.step("fence-seal"); err != nil {
		return err
	}
	if err := p.sealAll(truth, true); err != nil {
		if errors.Is(err, errPlaceDied) {
			return err
		}
		return errors.Join(err, p.unfence(truth))
	}
	if err := p.o.Audit("fenced", map[string]any{"truth": truth, "at": at}); err != nil {
		return errors.Join(err, p.unfence(truth))
	}
	return nil
}

// Ready does what can be done for a short fence while the service still runs. It is no
// loss when it cannot be done.
func (p *Place) Ready(truth migrate.Side) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	top, err := p.top(truth)
	if err != nil {
		return fmt.Errorf("prepare to fence the %s: %w", truth, err)
	}
	if err := p.healthy(truth, top); err != nil {
		return err
	}
	dir, err := openRoot(p.o.Dir, top.ID)
	if err != nil {
		return fmt.Errorf("prepare to fence the %s: %w", truth, err)
	}
	defer unix.Close(dir)
	p.dropNames(top, dir)
	return nil
}

// dropNames makes the change of the superblock short: it begins with forgetting all cached names, which
// took 0.7 s with half a million of them while the service was stopped. Where it fails, or would change an
// option, the fence takes longer, and that is all.
func (p *Place) dropNames(top *mountPoint, dir int) {
	if hasOption(top.SuperOptions, "inode32") {
		return // xfs goes back to its default for what it is not told again
	}
	_ = blockdev.DropNames(dir)
}

// errPlaceDied is how a test says that the process died at a step: nothing is undone then.
var errPlaceDied = errors.New("died")

// unfence takes a fence back after a later step of it failed.
func (p *Place) unfence(truth migrate.Side) error {
	p.fencedAt = time.Time{}
	if err := errors.Join(p.reopen(truth), p.finishSettle(truth)); err != nil {
		return fmt.Errorf("undo the fence: %w", err)
	}
	return nil
}

// healthy refuses to fence a volume that is read-only already, or that met
// errors since the place was opened: ext remounts itself read-only after one, and a
// fence over that would hide what was lost.
func (p *Place) healthy(truth migrate.Side, top *mountPoint) error {
	if top.ReadOnly() || blockdev.IsSuperReadOnly(top.Mount) {
		return &migrate.Problem{
			Kind: migrate.IsRefused,
			What: fmt.Sprintf("the %s at %s is read-only before the fence", truth, p.o.Dir),
			Hint: "look for errors in the kernel log (dmesg); mount it writable, or resume to settle an interrupted cutover",
		}
	}
	n, err := p.errorCount(truth)
	if err != nil {
		return err
	}
	if was, ok := p.errors[truth]; ok && n > was {
		return &migrate.Problem{
			Kind: migrate.IsRefused,
			What: fmt.Sprintf("the file system at %s recorded %d new errors", p.o.Dir, n-was),
			Hint: "look for errors in the kernel log (dmesg); check the volume before going on",
		}
	}
	return nil
}

// errorCount is how many errors the kernel recorded on a side's file system.
// XFS keeps no count: it shuts down instead, and then nothing can be written at all.
func (p *Place) errorCount(s migrate.Side) (int64, error) {
	d, err := p.deviceIfThere(s)
	if err != nil || d == nil {
		return 0, err
	}
	name := fmt.Sprintf("/sys/dev/block/%d:%d", d.Major, d.Minor)
	if link, err := os.Readlink(name); err == nil {
		name = filepath.Base(link)
	}
	switch {
	case strings.HasPrefix(p.format(s), "ext"):
		b, err := os.ReadFile("/sys/fs/ext4/" + name + "/errors_count")
		if errors.Is(err, os.ErrNotExist) {
			return 0, nil // not mounted, or by a driver that has no count
		}
		if err != nil {
			return 0, fmt.Errorf("read error count of %s: %w", d.Path, err)
		}
		return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	case p.format(s) == "btrfs":
		return btrfsErrors(name), nil
	}
	return 0, nil
}

// btrfsErrors adds up the lost writes in the device statistics of the file system that has the
// block device of that name as a member.
func btrfsErrors(name string) int64 {
	members, _ := filepath.Glob("/sys/fs/btrfs/*/devices/" + name)
	var sum int64
	for _, m := range members {
		stats, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(m)), "devinfo", "*", "error_stats"))
		for _, s := range stats {
			b, err := os.ReadFile(s)
			if err != nil {
				continue
			}
			sum += lostWrites(string(b))
		}
	}
	return sum
}

// lostWrites is what btrfs's device statistics say of writes: write, flush and generation
// errors. Blocks that cannot be read (read_errs, corruption_errs) are counted each time
// somebody tries; what they hold is named by the copy, and the proof behind the fence
// has it waived or refuses (I5).
func lostWrites(stats string) (sum int64) {
	for line := range strings.Lines(stats) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] == "read_errs" || f[0] == "corruption_errs" {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		sum += n
	}
	return sum
}

// Others lists the mounts of a side that no swap reaches: for a check before the start.
func (p *Place) Others(truth migrate.Side) ([]migrate.Holder, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.refuseOthers(truth)
	var busy *migrate.Busy
	if errors.As(err, &busy) {
		return busy.Holders, nil
	}
	return nil, err
}

// refuseOthers refuses every mount of the truth that the swap will not carry along: one
// elsewhere, or one in a namespace that propagation does not reach. A mount at Dir in a
// namespace that follows ours (a service with a private view, say) gets the new volume.
func (p *Place) refuseOthers(truth migrate.Side) error {
	l, err := p.list()
	if err != nil {
		return err
	}
	top, err := p.topOf(l, truth)
	if err != nil {
		return err
	}
	follows := followers(l, top)
	busy := &migrate.Busy{What: fmt.Sprintf("the %s at %s", truth, p.o.Dir)}
	for _, m := range l.of(truth) {
		if m == top || follows(m) {
			continue
		}
		busy.Holders = append(busy.Holders, p.mountHolder(m))
	}
	if len(busy.Holders) > 0 {
		return busy
	}
	return nil
}

func (p *Place) mountHolder(m *mountPoint) migrate.Holder {
	return migrate.Holder{PID: m.PID, Command: m.space(), Path: m.Point, Kind: "mount", Writes: !m.ReadOnly()}
}

// followers tells which mounts of other namespaces the kernel swaps together with
// top: those at the same place whose parent receives what is mounted on top's parent,
// directly or through a chain of slaves; also such layers below them that nobody can
// reach and that refuse writes.
func followers(l *listing, top *mountPoint) func(*mountPoint) bool {
	masters := map[string]string{} // peer group → the group it receives from
	for _, m := range l.all {
		if g := group(m.Propagation, "shared:"); g != "" {
			if from := group(m.Propagation, "master:"); from != "" {
				masters[g] = from
			}
		}
	}
	ours := group(top.ground, "shared:")
	receives := func(g string) bool {
		for range len(masters) + 1 {
			if g == ours {
				return true
			}
			if g = masters[g]; g == "" {
				return false
			}
		}
		return false
	}
	return func(m *mountPoint) bool {
		if m.own || m.NS == 0 || m.Point != top.Point {
			return false
		}
		if m.coveredIn(l) {
			return m.ReadOnly()
		}
		peer, from := group(m.ground, "shared:"), group(m.ground, "master:")
		return ours != "" && (peer == ours || from != "" && receives(from))
	}
}

// coveredIn reports whether another mount of the two volumes lies on m's root.
func (m *mountPoint) coveredIn(l *listing) bool {
	for _, c := range l.mounts {
		if c.NS == m.NS && c.Parent == m.ID && c.Point == m.Point {
			return true
		}
	}
	return false
}

// busyWriters says who kept the superblock from becoming read-only.
func (p *Place) busyWriters(truth migrate.Side, root int) error {
	dev, err := blockdev.MountDev(root)
	if err != nil {
		return err
	}
	holders, err := blockdev.FileHolders(dev, p.o.Dir)
	if err != nil {
		return fmt.Errorf("find who writes to %s: %w", p.o.Dir, err)
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s at %s", truth, p.o.Dir)}
	for _, h := range holders {
		if h.Writes || strings.HasSuffix(h.Path, " (deleted)") {
			busy.Holders = append(busy.Holders, migrate.Holder(h))
		}
	}
	if len(busy.Holders) == 0 { // it let go before we looked
		busy.Holders = []migrate.Holder{{Command: "unknown", Path: p.o.Dir, Kind: "write", Writes: true}}
	}
	return busy
}
