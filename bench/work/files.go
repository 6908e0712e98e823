package work

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// random is what decides operation k: the same one in every run, for every mover.
func random(k int64) *rand.Rand { return rand.New(rand.NewPCG(uint64(k), 0x5eed)) }

// noise is content that does not compress, shared by all.
var noise = sync.OnceValue(func() []byte {
	r, b := random(-1), make([]byte, 256<<10)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
})

// some are n bytes of it.
func some(r *rand.Rand, n int) []byte {
	b := noise()
	at := r.IntN(len(b) - n)
	return b[at : at+n]
}

// gone makes an error of nothing where another worker was faster with the same file.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// written writes a file, and syncs it when asked to.
func written(path string, flags int, b []byte, sync bool) (int64, error) {
	f, err := os.OpenFile(path, flags, 0o640)
	if err != nil {
		return 0, err
	}
	n, err := f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	return int64(n), errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mixed is a tree of some thousand small files.
type mixed struct{ dir string }

const (
	mixedDirs  = 32
	mixedFiles = 4000
)

func openMixed(dir string) (store, error) {
	m := mixed{filepath.Join(dir, "app-mixed")}
	for i := range mixedDirs {
		if err := os.MkdirAll(filepath.Join(m.dir, fmt.Sprintf("d%02d", i)), 0o755); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m mixed) path(r *rand.Rand) string {
	n := r.IntN(mixedFiles)
	return filepath.Join(m.dir, fmt.Sprintf("d%02d", n%mixedDirs), fmt.Sprintf("f%04d", n))
}

func (m mixed) do(k int64) (int64, error) {
	r := random(k)
	path := m.path(r)
	content := some(r, 1+min(int(r.ExpFloat64()*4096), 64<<10))
	switch p := r.IntN(100); {
	case p < 50:
		n, err := written(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, content, false)
		return n, err
	case p < 75:
		_, err := os.ReadFile(path)
		return 0, gone(err)
	case p < 85:
		return written(path, os.O_CREATE|os.O_WRONLY, content, true)
	case p < 93:
		return 0, gone(os.Rename(path, m.path(r)))
	default:
		return 0, gone(os.Remove(path))
	}
}

func (m mixed) close() error { return nil }

// one is a single file of 64 MiB that is written at random places.
type one struct {
	f   *os.File
	mem []byte // the mapping, for mmap
}

const (
	oneSize = 64 << 20
	page    = 4 << 10
)

func openOne(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, 2)
	for err == nil && size < oneSize {
		var n int
		n, err = f.WriteAt(noise()[:min(len(noise()), int(oneSize-size))], size)
		size += int64(n)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func openRandom(dir string) (store, error) {
	f, err := openOne(dir, "app-random")
	return &one{f: f}, err
}

func openMapped(dir string) (store, error) {
	f, err := openOne(dir, "app-mmap")
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, oneSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &one{f: f, mem: mem}, nil
}

func (o *one) do(k int64) (int64, error) {
	r := random(k)
	at := int64(r.IntN(oneSize/page)) * page
	b := some(r, page)
	if o.mem != nil {
		p := o.mem[at : at+page]
		copy(p, b)
		return page, unix.Msync(p, unix.MS_SYNC)
	}
	n, err := o.f.WriteAt(b, at)
	if err == nil {
		err = unix.Fdatasync(int(o.f.Fd()))
	}
	return int64(n), err
}

func (o *one) close() error {
	var err error
	if o.mem != nil {
		err = unix.Munmap(o.mem)
	}
	return errors.Join(err, o.f.Close())
}

// appended is a log that is rotated.
type appended struct {
	path string
	f    *os.File
	size int64
}

const (
	record   = 512
	rotateAt = 4 << 20
	rotated  = 4
)

func openAppend(dir string) (store, error) {
	a := &appended{path: filepath.Join(dir, "app-log")}
	return a, a.reopen()
}

func (a *appended) reopen() (err error) {
	if a.f, err = os.OpenFile(a.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		return err
	}
	a.size, err = a.f.Seek(0, 2)
	return err
}

func (a *appended) do(k int64) (int64, error) {
	if a.size >= rotateAt {
		if err := a.f.Close(); err != nil {
			return 0, err
		}
		for i := rotated; i > 0; i-- {
			from := fmt.Sprintf("%s.%d", a.path, i-1)
			if i == 1 {
				from = a.path
			}
			if err := gone(os.Rename(from, fmt.Sprintf("%s.%d", a.path, i))); err != nil {
				return 0, err
			}
		}
		if err := a.reopen(); err != nil {
			return 0, err
		}
	}
	line := append([]byte(fmt.Sprintf("%020d ", k)), some(random(k), record-21)...)
	n, err := a.f.Write(line)
	a.size += int64(n)
	if err == nil {
		err = unix.Fdatasync(int(a.f.Fd()))
	}
	return int64(n), err
}

func (a *appended) close() error { return a.f.Close() }
