package shadow

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// The label of a shadow tells whoever finds the volume without its state
// directory what it is: an unfinished copy, or one whose cutover had begun, so that only the
// switch record can say whether it is the truth.
const (
	markCopy  = "fsm-" // an unfinished copy, never the truth
	markMaybe = "fsm+" // a cutover began: ask the switch record
)

// shadowRecord is what is durably known of the shadow before it exists: a
// volume that bears this UUID is ours to overwrite, and ours to keep once it is Made.
type shadowRecord struct {
	UUID   string `json:"uuid"`
	Format string `json:"format"`
	Label  string `json:"label"`
	Made   bool   `json:"made"`
}

func (p *Place) recordPath() string { return filepath.Join(p.o.StateDir, "shadow.json") }

func (p *Place) loadRecord() (shadowRecord, error) {
	var r shadowRecord
	b, err := os.ReadFile(p.recordPath())
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read record of the shadow: %w", err)
	}
	return r, nil
}

func (p *Place) saveRecord(r shadowRecord) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := writeDurably(p.recordPath(), b); err != nil {
		return fmt.Errorf("write record of the shadow: %w", err)
	}
	return nil
}

// writeDurably replaces a file: new file → fsync → rename → fsync of the directory.
func writeDurably(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// label is a mark with as much of the id as the format's label takes.
func (p *Place) label(mark string, f formats.Format) string {
	l := mark + p.o.ID
	if n := f.LabelMax(); n < len(l) {
		l = l[:n]
	}
	return l
}

// mark changes the label of the mounted shadow.
func (p *Place) mark(mark string) error {
	f, ok := formats.Lookup(p.o.TargetFormat)
	if !ok {
		return fmt.Errorf("unknown format %q", p.o.TargetFormat)
	}
	return p.setLabel(p.label(mark, f))
}

func (p *Place) setLabel(label string) error {
	t := p.trees[migrate.Shadow]
	if t == nil {
		return errors.New("set label of the shadow: it is not open")
	}
	dir, err := readable(t.tree.Fd())
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if have, err := formats.Label(dir); err == nil && have == label {
		return nil
	}
	return formats.SetLabel(dir, label)
}

// Name gives the shadow the label of the plan, at finalize. It is the volume in place then.
func (p *Place) Name(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	top, err := p.top(migrate.Shadow)
	if err != nil {
		return fmt.Errorf("label the new volume: %w", err)
	}
	fd, err := openRoot(p.o.Dir, top.ID)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dir, err := readable(fd)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := formats.SetLabel(dir, p.o.Label); err != nil {
		return err
	}
	return blockdev.Syncfs(dir)
}

// readable opens the directory that an O_PATH descriptor names.
func readable(fd int) (int, error) {
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err != nil {
		return -1, fmt.Errorf("open root directory: %w", err)
	}
	return dir, nil
}

// Make lays the target format down on the spare, once: a volume that bears the
// UUID recorded in the state directory is kept. A file: spare is created and
// looped. Anything else that has a signature is refused without Wipe, also if it
// appeared after the preflight: this is looked at right before mkfs.
func (p *Place) Make(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := formats.Lookup(p.o.TargetFormat)
	if !ok {
		return fmt.Errorf("make the shadow: unknown format %q", p.o.TargetFormat)
	}
	rec, err := p.loadRecord()
	if err != nil {
		return err
	}
	if p.o.Spare.File != "" {
		if err := p.createFile(); err != nil {
			return err
		}
	}
	d, err := p.device(migrate.Shadow)
	if err != nil {
		return err
	}
	if rec.Made {
		return p.recognise(migrate.Shadow, d.Path)
	}
	excl, err := blockdev.OpenExclusive(d.Path)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return p.busyDevice(migrate.Shadow, d.Path)
		}
		return fmt.Errorf("open %s exclusively: %w", d.Path, err)
	}
	err = p.refuseForeign(d.Path, rec)
	if err := errors.Join(err, excl.Close()); err != nil { // mkfs itself opens it exclusively
		return err
	}
	if rec.UUID == "" {
		rec = shadowRecord{UUID: newUUID(), Format: p.o.TargetFormat, Label: p.label(markCopy, f)}
		if err := p.saveRecord(rec); err != nil {
			return err
		}
	}
	if err := p.step("mkfs"); err != nil {
		return err
	}
	if err := p.mkfs(ctx, f, d, rec); err != nil {
		return err
	}
	// mkfs may not tell of writes that failed, and what it says it made is never made again.
	if err := p.recognise(migrate.Shadow, d.Path); err != nil {
		return fmt.Errorf("%w: %w", errUnformatted, err)
	}
	if err := p.step("made"); err != nil {
		return err
	}
	rec.Made = true
	return p.saveRecord(rec)
}

// refuseForeign refuses a spare that bears what is not ours, unless it may be wiped.
func (p *Place) refuseForeign(path string, rec shadowRecord) error {
	sigs, err := blockdev.Signatures(path)
	if err != nil {
		return fmt.Errorf("probe %s: %w", path, err)
	}
	if p.o.Wipe {
		return nil
	}
	for _, s := range sigs {
		if rec.UUID != "" && strings.EqualFold(s.UUID, rec.UUID) {
			continue // a mkfs of ours that was interrupted
		}
		return &migrate.Problem{
			Kind: migrate.IsRefused,
			What: fmt.Sprintf("the spare %s bears %s at offset %d (label %q, UUID %s)", path, s.Type, s.Offset, s.Label, s.UUID),
			Hint: "make sure that nobody needs it, then allow it to be overwritten with --wipe",
		}
	}
	return nil
}

func (p *Place) mkfs(ctx context.Context, f formats.Format, d blockdev.Device, rec shadowRecord) error {
	argv, err := f.Mkfs(d.Path, formats.MakeOptions{
		Options: p.o.TargetOptions, Label: rec.Label, UUID: rec.UUID,
		Bytes: d.Bytes, Objects: p.o.Objects, SectorSize: d.LogicalSector,
	})
	if err != nil {
		return fmt.Errorf("make %s on %s: %w", p.o.TargetFormat, d.Path, err)
	}
	// mkfs leaves signatures where it writes nothing, and a later probe finds both.
	for _, argv := range [][]string{{"wipefs", "--all", "--quiet", d.Path}, argv} {
		if err := p.o.Audit("command", map[string]any{"argv": argv}); err != nil {
			return err
		}
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) && ctx.Err() == nil {
				err = fmt.Errorf("%w: %w", errUnformatted, err)
			}
			return fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, lastLine(out.String()))
		}
	}
	return syncDevice(d.Path)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func syncDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// createFile creates the spare's image, sparse, or checks the size of the one that is there.
func (p *Place) createFile() error {
	f, err := os.OpenFile(p.o.Spare.File, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("create spare file: %w", err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.Size() == 0:
		err = errors.Join(f.Truncate(p.o.Spare.Size), f.Sync())
	case p.o.Spare.Size != 0 && st.Size() != p.o.Spare.Size:
		err = fmt.Errorf("has %d bytes, the plan says %d", st.Size(), p.o.Spare.Size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("spare file %s: %w", p.o.Spare.File, err)
	}
	return nil
}

// recognise proves that the device bears the volume that this migration knows.
// A device that was swapped, restored or overwritten is never mounted (I8).
func (p *Place) recognise(side migrate.Side, path string) error {
	want := p.o.SourceUUID
	if side == migrate.Shadow {
		rec, err := p.loadRecord()
		if err != nil {
			return err
		}
		if want = rec.UUID; want == "" {
			return fmt.Errorf("mount the shadow %s: there is no record of it in %s", path, p.o.StateDir)
		}
	}
	if want == "" {
		return nil
	}
	f, ok := formats.Lookup(p.format(side))
	if !ok {
		return fmt.Errorf("unknown format %q", p.format(side))
	}
	dev, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("probe %s: %w", path, err)
	}
	defer dev.Close()
	size, err := dev.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("probe %s: %w", path, err)
	}
	v, err := f.Probe(dev, size)
	if err != nil {
		return fmt.Errorf("probe the %s %s: %w", side, path, err)
	}
	if !strings.EqualFold(v.UUID, want) {
		return fmt.Errorf("the %s %s bears %s with UUID %s, not %s", side, path, v.Format, v.UUID, want)
	}
	return nil
}

// newUUID is a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
