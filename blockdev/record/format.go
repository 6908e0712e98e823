package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sector is the unit of the log and of its images, in bytes.
const Sector = 512

// The flags of an entry.
const (
	FlagFlush    = 1 << 0
	FlagFUA      = 1 << 1
	FlagDiscard  = 1 << 2
	FlagMark     = 1 << 3
	FlagMetadata = 1 << 4
)

const (
	magic     = 0x6a736677736872
	version   = 1
	superSize = 28
	headSize  = 32
	// MaxMark is the longest text of a mark, in bytes.
	MaxMark = Sector - headSize
	// maxSectors bounds what an entry or a log may name: far more than any disk has,
	// and little enough that sums of it do not overflow.
	maxSectors = 1 << 52
)

// Super is the superblock of a log.
type Super struct {
	Entries    uint64
	SectorSize uint32
}

// AppendTo appends the superblock as the sector that it is on disk.
func (s Super) AppendTo(b []byte) []byte {
	var sector [Sector]byte
	le := binary.LittleEndian
	le.PutUint64(sector[0:], magic)
	le.PutUint64(sector[8:], version)
	le.PutUint64(sector[16:], s.Entries)
	le.PutUint32(sector[24:], s.SectorSize)
	return append(b, sector[:]...)
}

// ParseSuper reads the superblock from the first bytes of a log.
func ParseSuper(b []byte) (Super, error) {
	le := binary.LittleEndian
	switch {
	case len(b) < superSize:
		return Super{}, fmt.Errorf("parse log superblock: %d bytes: %w", len(b), io.ErrUnexpectedEOF)
	case le.Uint64(b) != magic:
		return Super{}, fmt.Errorf("parse log superblock: magic %#x is not a dm-log-writes log's", le.Uint64(b))
	case le.Uint64(b[8:]) != version:
		return Super{}, fmt.Errorf("parse log superblock: version %d, want %d", le.Uint64(b[8:]), version)
	}
	s := Super{Entries: le.Uint64(b[16:]), SectorSize: le.Uint32(b[24:])}
	if s.SectorSize != Sector {
		return Super{}, fmt.Errorf("parse log superblock: sectors of %d bytes, want %d", s.SectorSize, Sector)
	}
	return s, nil
}

// Entry is one entry of a log, without its data.
type Entry struct {
	Sector, Sectors uint64 // on the device: from where, how many
	Flags           uint64
	Mark            string // the text of a mark
}

// Has says whether a flag is set.
func (e Entry) Has(flag uint64) bool { return e.Flags&flag != 0 }

// DataSectors is the length of the data that follows the entry in the log.
func (e Entry) DataSectors() uint64 {
	if e.Has(FlagDiscard) {
		return 0
	}
	return e.Sectors
}

// AppendTo appends the entry as the sector that it is on disk. Marks longer than
// MaxMark are cut.
func (e Entry) AppendTo(b []byte) []byte {
	var sector [Sector]byte
	le := binary.LittleEndian
	text := e.Mark[:min(len(e.Mark), MaxMark)]
	le.PutUint64(sector[0:], e.Sector)
	le.PutUint64(sector[8:], e.Sectors)
	le.PutUint64(sector[16:], e.Flags)
	le.PutUint64(sector[24:], uint64(len(text)))
	copy(sector[headSize:], text)
	return append(b, sector[:]...)
}

// ParseEntry reads an entry from the sector that it is on disk.
func ParseEntry(b []byte) (Entry, error) {
	if len(b) < Sector {
		return Entry{}, fmt.Errorf("parse log entry: %d bytes: %w", len(b), io.ErrUnexpectedEOF)
	}
	le := binary.LittleEndian
	e := Entry{Sector: le.Uint64(b), Sectors: le.Uint64(b[8:]), Flags: le.Uint64(b[16:])}
	length := le.Uint64(b[24:])
	switch {
	case e.Sector > maxSectors || e.Sectors > maxSectors:
		return Entry{}, fmt.Errorf("parse log entry: %d sectors at %d: no device is so large", e.Sectors, e.Sector)
	case e.Flags == 0 && e.Sectors == 0:
		return Entry{}, errors.New("parse log entry: neither flags nor data")
	case e.Flags >= FlagMetadata<<1:
		return Entry{}, fmt.Errorf("parse log entry: unknown flags %#x", e.Flags)
	case length > MaxMark:
		return Entry{}, fmt.Errorf("parse log entry: %d bytes of text do not fit", length)
	case length > 0 && !e.Has(FlagMark):
		return Entry{}, errors.New("parse log entry: text, but no mark")
	}
	e.Mark = string(b[headSize : headSize+length])
	return e, nil
}
