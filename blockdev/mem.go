package blockdev

import (
	"fmt"
	"io"
	"sync"
)

// Storage is a device as the code that writes bytes sees it: a file, a block
// device, or one of the in-memory ones below. Offsets and sizes are bytes. What was
// written before a Sync that succeeded survives a power cut; what was not may, in
// part and in any order.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() int64
}

// page is the unit in which memory is given out and in which writes are torn.
const page = 4096

// Mem is a device in memory. It is sparse: only what was written takes space.
// It may be used by several goroutines.
type Mem struct {
	mu    sync.RWMutex
	size  int64
	pages map[int64]*[page]byte
}

// NewMem makes a device of size bytes, all zero.
func NewMem(size int64) *Mem {
	return &Mem{size: size, pages: map[int64]*[page]byte{}}
}

// Size is the device's size.
func (m *Mem) Size() int64 { return m.size }

// Sync does nothing: a Mem forgets nothing.
func (m *Mem) Sync() error { return nil }

// ReadAt reads len(p) bytes from off; io.EOF at the end of the device.
func (m *Mem) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read memory device: negative offset %d", off)
	}
	if off >= m.size {
		return 0, io.EOF
	}
	var err error
	if int64(len(p)) > m.size-off {
		p, err = p[:m.size-off], io.EOF
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for n := 0; n < len(p); {
		at := (off + int64(n)) % page
		part := p[n:min(len(p), n+int(page-at))]
		if data := m.pages[(off+int64(n))/page]; data != nil {
			copy(part, data[at:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p), err
}

// WriteAt writes all of p at off, or nothing: a device doesn't grow.
func (m *Mem) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > m.size || int64(len(p)) > m.size-off {
		return 0, fmt.Errorf("write memory device: %d bytes at %d of %d: %w", len(p), off, m.size, io.ErrShortWrite)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := 0; n < len(p); {
		at := (off + int64(n)) % page
		number := (off + int64(n)) / page
		data := m.pages[number]
		if data == nil {
			data = new([page]byte)
			m.pages[number] = data
		}
		n += copy(data[at:], p[n:])
	}
	return len(p), nil
}

// Clone is an independent copy.
func (m *Mem) Clone() *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := NewMem(m.size)
	for n, data := range m.pages {
		c.pages[n] = new(*data)
	}
	return c
}
