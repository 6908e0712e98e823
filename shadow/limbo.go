package shadow

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// Limbo is a hidden directory in the root of `to`. A name that `from` does
// not have moves there instead of being removed, since the object may have another
// name already that a later comparison finds: so a rename is never a copy, and
// the order of events does not matter. It lets go of an object only when its handle
// on `from` is stale, and is empty before a switch record.

// openLimbo finds the limbo that an earlier run left.
func (p *pair) openLimbo() error {
	_, err := p.limboAt(false)
	return err
}

// limboAt is limbo's descriptor: -1 when there is none and it need not be made. It is made
// when first needed, and goes when it is empty: on a volume at rest there is none.
func (p *pair) limboAt(make bool) (int, error) {
	p.limboMu.Lock()
	defer p.limboMu.Unlock()
	if p.limboFD >= 0 {
		return p.limboFD, nil
	}
	if make {
		err := unix.Mkdirat(p.to.fd, p.limboDir, 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, &copier.TargetError{Op: "make limbo", Off: -1, Err: err}
		}
	}
	fd, err := unix.Openat(p.to.fd, p.limboDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && !make {
		return -1, nil
	}
	if err != nil {
		return -1, &copier.TargetError{Op: "open limbo", Off: -1, Err: err}
	}
	if p.limbo, err = p.to.codec.NodeAt(fd, "", unix.AT_EMPTY_PATH); err != nil {
		unix.Close(fd)
		return -1, &copier.TargetError{Op: "identify limbo", Off: -1, Err: err}
	}
	p.limboFD = fd
	return fd, nil
}

func limboName(to Node) string { return fmt.Sprintf("%x.%x", to.Ino, to.Gen) }

// toLimbo moves the entry name of directory dir on `to`, which is the object
// `to`, out of the tree. A further name of an object that is in limbo already just goes.
func (p *pair) toLimbo(dir int, name string, to Node) error {
	if err := p.undressAt(dir, name); err != nil {
		return err
	}
	limbo, err := p.limboAt(true)
	if err != nil {
		return err
	}
	if err := p.touch("limbo"); err != nil {
		return err
	}
	err = unix.Renameat2(dir, name, limbo, limboName(to), unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
	case errors.Is(err, unix.EEXIST):
		err = unix.Unlinkat(dir, name, 0)
	case errors.Is(err, unix.ENOENT):
		return nil
	}
	if err != nil {
		return &copier.TargetError{Op: "move " + name + " to limbo", Off: -1, Err: err}
	}
	from, ok, err := p.nodes.From(to)
	if err != nil || !ok {
		return err
	}
	p.journal.Mark(from, Attrs|Firm) // its link count changed, and it was undressed
	return nil
}

// undressAt clears what would keep an entry of `to` from being moved.
func (p *pair) undressAt(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &copier.TargetError{Op: "open " + name, Off: -1, Err: err}
	}
	defer unix.Close(fd)
	return p.undress(fd)
}

// sweepLimbo removes from limbo all whose counterpart on `from` exists no more (or
// which never had one: left by a crash between creation and record). With all,
// what is left afterwards is an error: behind the fence nothing may wait there.
func (p *pair) sweepLimbo(ctx context.Context, all bool) (left int, err error) {
	if limbo, err := p.limboAt(false); err != nil || limbo < 0 {
		return 0, err
	}
	var names []string
	if err := copier.ListDir(p.limboFD, copier.NewBuffers(), func(d copier.Dirent) error {
		names = append(names, strings.Clone(d.Name))
		return nil
	}); err != nil {
		return 0, &copier.TargetError{Op: "list limbo", Off: -1, Err: err}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return left, err
		}
		dead, err := p.dead(name)
		if err != nil {
			return left, err
		}
		if !dead {
			kept, err := p.keepInLimbo(name)
			if err != nil {
				return left, err
			}
			if kept {
				left++
			}
			continue
		}
		if err := p.purge(ctx, p.limboFD, name); err != nil {
			return left, err
		}
	}
	if left > 0 {
		return left, nil
	}
	return 0, p.dropLimbo()
}

// keepInLimbo reports whether limbo has the last name of a living object. Where it
// has not, its name goes: the object has one link less on `from` too.
func (p *pair) keepInLimbo(name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(p.limboFD, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if vanished(err) {
		return false, nil
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		if err = p.undressAt(p.limboFD, name); err == nil {
			err = unix.Unlinkat(p.limboFD, name, 0)
		}
		if err == nil {
			return false, p.dressAgain(name)
		}
	}
	if err != nil {
		return false, &copier.TargetError{Op: "look at limbo", Off: -1, Err: err}
	}
	return true, nil
}

// dressAgain marks what was undressed to be moved: only we touched it, so no scan
// would find that its attributes are not the source's.
func (p *pair) dressAgain(limbo string) error {
	var to Node
	if _, err := fmt.Sscanf(limbo, "%x.%x", &to.Ino, &to.Gen); err != nil {
		return nil // not a name of ours
	}
	from, ok, err := p.nodes.From(to)
	if err == nil && ok {
		p.journal.Mark(from, Attrs|Firm)
	}
	return err
}

// dead reports whether what limbo holds under name has no counterpart on `from`.
func (p *pair) dead(name string) (bool, error) {
	to, err := p.to.codec.NodeAt(p.limboFD, name, 0)
	if vanished(err) {
		return false, nil
	}
	if err != nil {
		return false, &copier.TargetError{Op: "look up limbo", Off: -1, Err: err}
	}
	from, ok, err := p.nodes.From(to)
	if err != nil || !ok {
		return !ok, err
	}
	fd, err := p.from.open(from, unix.O_PATH|unix.O_NOFOLLOW)
	if vanished(err) {
		return true, nil
	}
	if err != nil {
		return false, p.sourceFailed(from, "open", err)
	}
	unix.Close(fd)
	return false, nil
}

// purge removes the entry name of directory dir on `to`, with all below it whose
// counterpart is gone too; what is alive goes to limbo on its own.
func (p *pair) purge(ctx context.Context, dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return p.purgeFile(dir, name)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &copier.TargetError{Op: "open " + name, Off: -1, Err: err}
	}
	defer unix.Close(fd)
	if err := p.undress(fd); err != nil {
		return err
	}
	if err := p.purgeEntries(ctx, fd); err != nil {
		return err
	}
	to, err := p.to.codec.NodeAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify " + name, Off: -1, Err: err}
	}
	if err := p.touch("rmdir"); err != nil {
		return err
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &copier.TargetError{Op: "remove " + name, Off: -1, Err: err}
	}
	return p.forget(to)
}

func (p *pair) purgeEntries(ctx context.Context, fd int) error {
	var names []string
	if err := copier.ListDir(fd, copier.NewBuffers(), func(d copier.Dirent) error {
		names = append(names, strings.Clone(d.Name))
		return nil
	}); err != nil {
		return &copier.TargetError{Op: "list directory", Off: -1, Err: err}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		to, err := p.to.codec.NodeAt(fd, name, 0)
		if vanished(err) {
			continue
		}
		if err != nil {
			return &copier.TargetError{Op: "look up " + name, Off: -1, Err: err}
		}
		from, known, err := p.nodes.From(to)
		if err != nil {
			return err
		}
		alive := false
		if known {
			if h, err := p.from.open(from, unix.O_PATH|unix.O_NOFOLLOW); err == nil {
				unix.Close(h)
				alive = true
			} else if !vanished(err) {
				return p.sourceFailed(from, "open", err)
			}
		}
		if alive {
			// It has moved on `from` to a directory that is not compared yet.
			err = p.toLimbo(fd, name, to)
		} else {
			err = p.purge(ctx, fd, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) purgeFile(dir int, name string) error {
	to, err := p.to.codec.NodeAt(dir, name, 0)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return &copier.TargetError{Op: "look up " + name, Off: -1, Err: err}
	}
	if err := p.undressAt(dir, name); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &copier.TargetError{Op: "stat " + name, Off: -1, Err: err}
	}
	if err := p.touch("unlink"); err != nil {
		return err
	}
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &copier.TargetError{Op: "remove " + name, Off: -1, Err: err}
	}
	if st.Nlink > 1 {
		return nil // another name of it is still there
	}
	return p.forget(to)
}

// forget drops the record of an object that `to` does not have any more.
func (p *pair) forget(to Node) error {
	from, ok, err := p.nodes.From(to)
	if err != nil || !ok {
		return err
	}
	p.names.forget(from)
	return p.drop(from)
}

// dropLimbo removes the empty limbo directory: nothing of ours stays on a volume
// that becomes the truth.
func (p *pair) dropLimbo() error {
	if p.limboFD < 0 {
		return nil
	}
	err := unix.Unlinkat(p.to.fd, p.limboDir, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // what was purged put something there that lives
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &copier.TargetError{Op: "remove limbo", Off: -1, Err: err}
	}
	unix.Close(p.limboFD)
	p.limboFD, p.limbo = -1, Node{}
	return p.dressRoot()
}

// dressRoot gives the root its times back after limbo went, and looks that it has them.
func (p *pair) dressRoot() error {
	b := spareBuffers.Get().(*copier.Buffers)
	defer spareBuffers.Put(b)
	attr, err := copier.ReadAttr(p.from.fd, b)
	if err != nil {
		return p.sourceFailed(p.from.root, "read attributes of", err)
	}
	want, ok := p.fitted(p.from.root, fdName{fd: p.from.fd}, &attr)
	if !ok {
		return nil
	}
	if err := p.dress(nil, p.to.fd, &want); err != nil {
		return err
	}
	have, err := copier.ReadAttr(p.to.fd, b)
	if err != nil {
		return &copier.TargetError{Op: "read attributes of the root", Off: -1, Err: err}
	}
	if ds := p.equalAttr(&want, &have); len(ds) > 0 {
		return &copier.TargetError{Op: "dress the root", Off: -1, Err: errors.New(ds[0].String())}
	}
	return nil
}
