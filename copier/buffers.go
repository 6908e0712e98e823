package copier

import (
	"fmt"
	"unsafe"
)

const (
	dataBytes  = 1 << 20 // one read, one range
	direntByte = 64 << 10
	xattrBytes = 64 << 10 // XATTR_SIZE_MAX, XATTR_LIST_MAX: of a value, and of a list of names
	pageBytes  = 4096     // alignment of data for O_DIRECT
)

// Buffers is one worker's memory: what is needed per object is taken from here,
// so that copying a small file allocates nothing. Not for concurrent use. A
// callback of ListDir may use the same Buffers for everything but ListDir.
// The zero value is ready; memory is taken when first needed and kept.
type Buffers struct {
	data   []byte // dataBytes, page-aligned
	dents  []byte
	names  []byte // list of xattr names
	val    []byte // xattr value, symlink target
	intern map[string]string
	digest digester
	pipe   *pipeline
	runs   []run
}

// NewBuffers returns Buffers for one worker.
func NewBuffers() *Buffers { return &Buffers{} }

// aligned makes a buffer for O_DIRECT. Its pages are touched: into memory that is
// not there yet, btrfs falls back to reading through the page cache.
func aligned(n int) []byte {
	b := make([]byte, n+pageBytes)
	shift := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (pageBytes - 1))
	b = b[shift : shift+n : shift+n]
	for i := 0; i < n; i += pageBytes {
		b[i] = 0
	}
	return b
}

// Data is the worker's page-aligned buffer of 1 MiB, free between calls.
func (b *Buffers) Data() []byte {
	if b.data == nil {
		b.data = aligned(dataBytes)
	}
	return b.data
}

func (b *Buffers) dirents() []byte {
	if b.dents == nil {
		b.dents = make([]byte, direntByte)
	}
	return b.dents
}

func (b *Buffers) nameList() []byte {
	if b.names == nil {
		b.names = make([]byte, xattrBytes)
	}
	return b.names
}

func (b *Buffers) value() []byte {
	if b.val == nil {
		b.val = make([]byte, xattrBytes)
	}
	return b.val
}

func (b *Buffers) digester() *digester {
	b.digest.reset()
	return &b.digest
}

// maxIntern bounds the names kept: an application may make up as many as it likes.
const maxIntern = 4096

// name returns raw as a string; the same few attribute names come a million times.
func (b *Buffers) name(raw []byte) string {
	if s, ok := b.intern[string(raw)]; ok {
		return s
	}
	if b.intern == nil || len(b.intern) >= maxIntern {
		b.intern = make(map[string]string)
	}
	s := string(raw)
	b.intern[s] = s
	return s
}

// String keeps a Buffers out of debug output: it may hold an application's data.
func (b *Buffers) String() string { return fmt.Sprintf("copier.Buffers(%p)", b) }
