package churn

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// file is a drawn file, locked, with an O_PATH descriptor.
type file struct {
	n  *Node
	fd int
}

// pickFile draws a file that nobody else works on, opens it and lets the tree go.
func (w *worker) pickFile() (file, func(), error) {
	w.Model.tree.RLock()
	defer w.Model.tree.RUnlock()
	n := w.pick(1)
	if n == nil || !n.mu.TryLock() {
		return file{}, nil, nil
	}
	if len(n.Pending) > 0 { // frozen, so that "old or new" stays a sharp question
		n.mu.Unlock()
		return file{}, nil, nil
	}
	fd, err := w.vol.node(n, w.rng.IntN(8))
	if err != nil {
		n.mu.Unlock()
		return file{}, nil, w.verdict(err)
	}
	return file{n, fd}, func() { unix.Close(fd); n.mu.Unlock() }, nil
}

// length draws a length up to limit: mostly small, rarely large.
func (w *worker) length(limit int64) int64 {
	switch k := w.rng.IntN(20); {
	case k < 10:
		return 1 + w.rng.Int64N(min(limit, 8<<10))
	case k < 18:
		return 1 + w.rng.Int64N(min(limit, 64<<10))
	}
	return 1 + w.rng.Int64N(limit)
}

// on draws a file, opens it for I/O and performs what the caller makes of it.
func (w *worker) on(flags int, build func(f file, io int) *action) error {
	f, release, err := w.pickFile()
	if f.n == nil || err != nil {
		return err
	}
	defer release()
	if f.n.held != nil && f.n.held.fd >= 0 && flags == unix.O_RDWR {
		return w.through(f, f.n.held.fd, build) // through a descriptor that has been open for long
	}
	io, err := reopen(f.fd, flags)
	if err != nil {
		return w.verdict(err) // EPERM: immutable or append-only
	}
	defer unix.Close(io)
	return w.through(f, io, build)
}

func (w *worker) through(f file, io int, build func(f file, io int) *action) error {
	a := build(f, io)
	if a == nil {
		return nil
	}
	a.node, a.fd, a.op.Node, a.op.Worker = f.n, f.fd, f.n.ID, w.id
	return w.perform(*a)
}

// write appends or overwrites in place.
func (w *worker) write() error {
	flags := unix.O_RDWR
	appending := w.rng.IntN(3) == 0
	if appending {
		flags |= unix.O_APPEND
	}
	return w.on(flags, func(f file, io int) *action {
		size := f.n.Content.Size
		op := &Op{Kind: Write, Off: size, Len: w.length(w.o.MaxFile / 4), Seed: w.rng.Uint64()}
		if !appending && size > 0 {
			op.Off = w.rng.Int64N(size + size/8 + 1)
		}
		if op.Off+op.Len > 2*w.o.MaxFile {
			return nil
		}
		buf := make([]byte, op.Len)
		Fill(op.Seed, op.Off, buf)
		return &action{op: op, do: func() (int64, error) {
			if !appending {
				n, err := unix.Pwrite(io, buf, op.Off)
				return int64(max(n, 0)), err
			}
			n, err := unix.Write(io, buf)
			return int64(max(n, 0)), err
		}}
	})
}

const block = 4096

// direct writes whole blocks past the page cache.
func (w *worker) direct() error {
	return w.on(unix.O_RDWR|unix.O_DIRECT, func(f file, io int) *action {
		op := &Op{Kind: Direct, Len: block * (1 + w.rng.Int64N(16)), Seed: w.rng.Uint64()}
		op.Off = block * w.rng.Int64N(f.n.Content.Size/block+1)
		if op.Off+op.Len > 2*w.o.MaxFile {
			return nil
		}
		buf := aligned(int(op.Len))
		Fill(op.Seed, op.Off, buf)
		return &action{op: op, do: func() (int64, error) {
			n, err := unix.Pwrite(io, buf, op.Off)
			return int64(max(n, 0)), err
		}}
	})
}

// aligned makes a buffer that O_DIRECT takes.
func aligned(n int) []byte {
	buf := make([]byte, n+block)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))) & (block - 1)
	return buf[skip : skip+n]
}

func (w *worker) truncate() error {
	return w.on(unix.O_RDWR, func(f file, io int) *action {
		op := &Op{Kind: Truncate, Len: w.rng.Int64N(f.n.Content.Size + 1)}
		if w.rng.IntN(3) == 0 {
			op.Len = min(f.n.Content.Size+w.rng.Int64N(512<<10), 2*w.o.MaxFile)
		}
		return &action{op: op, do: func() (int64, error) { return 0, unix.Ftruncate(io, op.Len) }}
	})
}

// fallocate punches, zeroes, allocates or reserves.
func (w *worker) fallocate() error {
	return w.on(unix.O_RDWR, func(f file, io int) *action {
		size := f.n.Content.Size
		op := &Op{Off: w.rng.Int64N(size + 1), Len: w.length(256 << 10)}
		var mode uint32
		switch w.rng.IntN(5) {
		case 0, 1:
			op.Kind, mode = Punch, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE
		case 2:
			op.Kind, mode = ZeroOut, unix.FALLOC_FL_ZERO_RANGE
		case 3:
			op.Kind = Allocate
		case 4:
			op.Kind, mode = Reserve, unix.FALLOC_FL_KEEP_SIZE
		}
		if op.Kind != Punch && op.Off+op.Len > 2*w.o.MaxFile {
			return nil
		}
		return &action{op: op, do: func() (int64, error) { return 0, unix.Fallocate(io, mode, op.Off, op.Len) }}
	})
}

// copyIn copies a range of another file with copy_file_range.
func (w *worker) copyIn() error {
	return w.between(func(src, dst file, in, out int) *action {
		from := &src.n.Content
		if from.Size == 0 {
			return nil
		}
		op := &Op{Kind: CopyIn, At: w.rng.Int64N(from.Size), Off: w.rng.Int64N(dst.n.Content.Size + 1), Len: w.length(64 << 10)}
		return &action{op: op, do: func() (int64, error) {
			at, off, done := op.At, op.Off, int64(0)
			for done < op.Len && at < from.Size {
				n, err := unix.CopyFileRange(in, &at, out, &off, int(min(op.Len, from.Size-op.At)-done), 0)
				if err != nil || n == 0 {
					if done > 0 {
						err = nil
					}
					return done, err
				}
				done += int64(n)
			}
			return done, nil
		}}
	})
}

// clone shares all of another file's extents, where the volume can.
func (w *worker) clone() error {
	return w.between(func(src, dst file, in, out int) *action {
		if src.n.Content.Size < dst.n.Content.Size {
			return nil // FICLONE leaves the rest of a longer file in place
		}
		return &action{op: &Op{Kind: Clone}, do: func() (int64, error) { return 0, unix.IoctlFileClone(out, in) }}
	})
}

// between draws two files and locks both.
func (w *worker) between(build func(src, dst file, in, out int) *action) error {
	src, release, err := w.pickFile()
	if src.n == nil || err != nil {
		return err
	}
	defer release()
	in, err := reopen(src.fd, unix.O_RDONLY)
	if err != nil {
		return w.verdict(err)
	}
	defer unix.Close(in)
	return w.on(unix.O_RDWR, func(dst file, out int) *action {
		a := build(src, dst, in, out)
		if a != nil {
			a.from, a.op.From = src.n, src.n.ID
		}
		return a
	})
}

// fsync makes a file durable; nothing changes that the model knows of.
func (w *worker) fsync() error {
	f, release, err := w.pickFile()
	if f.n == nil || err != nil {
		return err
	}
	defer release()
	fd, err := reopen(f.fd, unix.O_RDONLY)
	if err != nil {
		return w.verdict(err)
	}
	defer unix.Close(fd)
	if w.rng.IntN(2) == 0 {
		return w.verdict(unix.Fdatasync(fd))
	}
	return w.verdict(unix.Fsync(fd))
}

// errFault is the answer of a store that the volume could not take.
var errFault = errors.New("SIGBUS")
