package shadow

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// detached finds the mounts of the volume behind root that no namespace has any
// more, or ever had, and that another process keeps alive.
func (p *Place) detached(root int) ([]blockdev.Mount, error) {
	dev, err := blockdev.MountDev(root)
	if err != nil {
		return nil, err
	}
	return blockdev.DetachedMountsOf(dev, blockdev.IgnorePID(os.Getpid()))
}

func detachedHolder(m blockdev.Mount) migrate.Holder {
	h := migrate.Holder{Kind: "mount", Path: m.Via, Writes: true}
	if _, err := fmt.Sscanf(m.Via, "/proc/%d/", &h.PID); err == nil {
		h.Command = commandOf(h.PID)
	}
	if path, err := os.Readlink(m.Via); err == nil {
		h.Path = path
	}
	switch {
	case strings.HasSuffix(m.Via, "/cwd"):
		h.Kind = "cwd"
	case strings.HasSuffix(m.Via, "/root"):
		h.Kind = "root"
	case strings.Contains(m.Via, "/fd/"):
		h.Kind = "read"
	}
	return h
}

// refuseDetached refuses what holds a mount of the truth that is attached in no namespace:
// nobody can seal such a mount, so a write through it could only be kept out by
// the superblock, which reverse needs writable.
func (p *Place) refuseDetached(truth migrate.Side, root int) error {
	ms, err := p.detached(root)
	if err != nil || len(ms) == 0 {
		return err
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s at %s, through a mount that was unmounted lazily or never attached,", truth, p.o.Dir)}
	for _, m := range ms {
		busy.Holders = append(busy.Holders, detachedHolder(m))
	}
	return busy
}

// tellReaders warns of those who keep reading the truth after it became the past.
func (p *Place) tellReaders(truth migrate.Side, root int) error {
	const most = 20
	dev, err := blockdev.MountDev(root)
	if err != nil {
		return err
	}
	holders, err := blockdev.FileHolders(dev, p.o.Dir, blockdev.IgnorePID(os.Getpid()))
	if err != nil {
		return err
	}
	for i, h := range holders {
		if i == most {
			p.o.Warn("more readers stay on the old volume", fmt.Sprintf("%d in all", len(holders)), "")
			break
		}
		if h.Writes {
			continue // the kernel refuses the fence, or it ends in time
		}
		p.o.Warn(fmt.Sprintf("pid %d (%s) stays on the %s", h.PID, h.Command, truth),
			fmt.Sprintf("%s %s: it reads the past after the cutover", h.Kind, h.Path),
			"restart it after the cutover")
	}
	return nil
}

// refuseUnsealed looks for a road to the old volume that the seals do not cover: a
// process on a mount that is attached nowhere and was not sealed before it was detached.
func (p *Place) refuseUnsealed(old migrate.Side) error {
	t := p.trees[old]
	if t == nil {
		var err error
		if t, err = p.mountPrivate(old, false); err != nil {
			return err
		}
		defer t.tree.Close()
	}
	ms, err := p.detached(t.tree.Fd())
	if err != nil {
		return err
	}
	led, err := p.loadLedger(old)
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, m := range led.Mounts {
		known[m.ID] = true
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s (%s)", old, p.format(old))}
	for _, m := range ms {
		if !known[m.ID] {
			busy.Holders = append(busy.Holders, detachedHolder(m))
		}
	}
	if len(busy.Holders) > 0 {
		return busy
	}
	return nil
}

// allSealed proves, with the superblock writable, that no mount which only another
// process has lets anybody write: statfs says so of the very mount.
func (p *Place) allSealed(old migrate.Side, root int) error {
	ms, err := p.detached(root)
	if err != nil {
		return err
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s (%s)", old, p.format(old))}
	for _, m := range ms {
		var fs unix.Statfs_t
		switch err := unix.Statfs(m.Via, &fs); {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
			continue // let go of meanwhile
		case err != nil:
			return fmt.Errorf("look through %s: %w", m.Via, err)
		case fs.Flags&unix.ST_RDONLY == 0:
			busy.Holders = append(busy.Holders, detachedHolder(m))
		}
	}
	if len(busy.Holders) > 0 {
		return busy
	}
	return nil
}

// mountID is the id of the mount that fd was opened through, as mountinfo shows it.
func mountID(fd int) (int, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("read mount id: %w", err)
	}
	return int(st.Mnt_id), nil
}

// openRoot opens the topmost mount at path and makes sure that it is mount id.
func openRoot(path string, id int) (int, error) {
	fd, err := openTop(path)
	if err != nil {
		return -1, err
	}
	got, err := mountID(fd)
	if err == nil && got != id {
		err = fmt.Errorf("open mount %s: %w", path, blockdev.ErrCovered)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
