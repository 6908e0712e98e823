package record

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Disk is one image as whoever serves it sees it. Offsets and lengths are bytes,
// multiples of Sector, within Size. It may be used by several goroutines.
type Disk interface {
	Size() int64
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Discard makes the range read as zeros.
	Discard(off, n int64) error
	// Sync makes everything that was written before it durable.
	Sync() error
}

// Recorder holds images, all zero in the beginning, and logs what is done to them.
type Recorder struct {
	images []Image

	mu      sync.RWMutex
	file    *os.File
	tables  []table
	end     uint64 // the log's length in sectors
	entries uint64
	broken  error // the log could not be written: nothing is acknowledged any more
}

// ImageSpec is an image to be: Bytes is rounded up to whole MiB.
type ImageSpec struct {
	Name  string
	Bytes int64
}

// NewRecorder starts a log in a new file at path. The file is not synced: it is to
// survive the process, not the machine.
func NewRecorder(path string, specs []ImageSpec) (*Recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start write log: %w", err)
	}
	r := &Recorder{file: f, end: 1}
	base := uint64(0)
	for _, s := range specs {
		img := Image{Name: s.Name, Base: base, Sectors: (uint64(s.Bytes) + align*Sector - 1) / (align * Sector) * align}
		if s.Bytes <= 0 || s.Name == "" {
			f.Close()
			return nil, fmt.Errorf("start write log: image %q of %d bytes", s.Name, s.Bytes)
		}
		base += img.Sectors
		r.images = append(r.images, img)
		r.tables = append(r.tables, make(table, img.Sectors))
		if err := r.append(img.mark(), nil); err != nil {
			f.Close()
			return nil, err
		}
	}
	return r, nil
}

// Continue starts a log in a new file at path with images that hold what s does: for a
// machine that goes on after a cut.
func Continue(path string, s *State) (*Recorder, error) {
	var specs []ImageSpec
	for _, img := range s.log.Images {
		specs = append(specs, ImageSpec{Name: img.Name, Bytes: img.Bytes()})
	}
	r, err := NewRecorder(path, specs)
	if err != nil {
		return nil, err
	}
	for i := range r.images {
		err := EachUsed(s.Disk(i), func(p []byte, off int64) error {
			_, err := r.Disk(i).WriteAt(p, off)
			return err
		})
		if err = errors.Join(err, r.Disk(i).Sync()); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// EachUsed calls do with every piece of a disk that is not all zero, in order. The piece
// is do's only until it returns.
func EachUsed(d Disk, do func(p []byte, off int64) error) error {
	const piece = 64 << 10
	b, zeros := make([]byte, piece), make([]byte, piece)
	for off := int64(0); off < d.Size(); off += piece {
		p := b[:min(piece, d.Size()-off)]
		if _, err := d.ReadAt(p, off); err != nil {
			return err
		}
		if bytes.Equal(p, zeros[:len(p)]) {
			continue
		}
		if err := do(p, off); err != nil {
			return err
		}
	}
	return nil
}

// Images are the images, in order.
func (r *Recorder) Images() []Image { return r.images }

// Disk is the i-th image.
func (r *Recorder) Disk(i int) Disk { return recorded{r, i} }

// Mark puts a text of at most MaxMark bytes into the log and answers how many entries
// stand in it now.
func (r *Recorder) Mark(text string) (uint64, error) {
	if len(text) > MaxMark || text == "" {
		return 0, fmt.Errorf("mark of %d bytes: 1 to %d are possible", len(text), MaxMark)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.append(Entry{Flags: FlagMark, Mark: text}, nil)
	return r.entries, err
}

// Close ends the log.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken == nil {
		r.broken = os.ErrClosed
	}
	return r.file.Close()
}

// append writes an entry and its data, and then the superblock that counts it.
func (r *Recorder) append(e Entry, data []byte) error {
	if r.broken != nil {
		return r.broken
	}
	if r.end+1+uint64(len(data)/Sector) >= maxLog {
		return r.fail(errors.New("it has 2 TiB, and its tables end there"))
	}
	bufs := [][]byte{e.AppendTo(make([]byte, 0, Sector)), data}
	want := Sector + len(data)
	if n, err := unix.Pwritev(int(r.file.Fd()), bufs, int64(r.end)*Sector); err != nil || n != want {
		return r.fail(fmt.Errorf("%d of %d bytes: %w", n, want, err))
	}
	super := Super{Entries: r.entries + 1, SectorSize: Sector}.AppendTo(nil)
	if _, err := r.file.WriteAt(super, 0); err != nil {
		return r.fail(err)
	}
	r.entries++
	r.end += uint64(want / Sector)
	return nil
}

func (r *Recorder) fail(err error) error {
	r.broken = fmt.Errorf("write log: %w", err)
	return r.broken
}

// recorded is an image of a Recorder.
type recorded struct {
	r *Recorder
	i int
}

func (d recorded) Size() int64 { return d.r.images[d.i].Bytes() }

func (d recorded) ReadAt(p []byte, off int64) (int, error) {
	at, n, err := span(d.Size(), off, len(p))
	if err != nil {
		return 0, fmt.Errorf("read image: %w", err)
	}
	places := make([]uint32, n)
	d.r.mu.RLock()
	copy(places, d.r.tables[d.i][at:])
	d.r.mu.RUnlock()
	// What is in the log is never written again: it can be read without the lock.
	if err := readRuns(d.r.file, places, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d recorded) WriteAt(p []byte, off int64) (int, error) {
	at, n, err := span(d.Size(), off, len(p))
	if err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	data := d.r.end + 1
	if err := d.r.append(Entry{Sector: d.r.images[d.i].Base + at, Sectors: n}, p); err != nil {
		return 0, err
	}
	d.r.tables[d.i].set(at, n, data)
	return len(p), nil
}

func (d recorded) Discard(off, length int64) error {
	at, n, err := span(d.Size(), off, int(length))
	if err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	if err := d.r.append(Entry{Sector: d.r.images[d.i].Base + at, Sectors: n, Flags: FlagDiscard}, nil); err != nil {
		return err
	}
	d.r.tables[d.i].zero(at, n)
	return nil
}

func (d recorded) Sync() error {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	return d.r.append(Entry{Sector: d.r.images[d.i].Base, Flags: FlagFlush}, nil)
}
