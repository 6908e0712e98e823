package record

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// align is where images begin in the space of all of them: at multiples of it.
const align = 1 << 20 / Sector

// Image is one image of a log.
type Image struct {
	Name    string
	Base    uint64 // its first sector in the space of all images
	Sectors uint64
}

// Bytes is the image's size.
func (i Image) Bytes() int64 { return int64(i.Sectors) * Sector }

func (i Image) mark() Entry {
	return Entry{Sector: i.Base, Flags: FlagMark, Mark: fmt.Sprintf("image %s %d", i.Name, i.Sectors)}
}

// parseImage reads the mark that declares an image.
func parseImage(e Entry) (Image, bool) {
	f := strings.Fields(e.Mark)
	if !e.Has(FlagMark) || len(f) != 3 || f[0] != "image" {
		return Image{}, false
	}
	n, err := strconv.ParseUint(f[2], 10, 64)
	if err != nil || n == 0 || n > maxSectors {
		return Image{}, false
	}
	return Image{Name: f[1], Base: e.Sector, Sectors: n}, true
}

// Logged is an entry with its place in the log.
type Logged struct {
	Entry
	Image int    // index into Log.Images; -1 of a mark
	Data  uint64 // the sector of the log where its data begins
}

// Log is a log that was written, or is being written: as far as its superblock says.
type Log struct {
	Images  []Image
	Entries []Logged

	data io.ReaderAt
	file *os.File
}

// OpenLog reads the log of a Recorder. It keeps the file open until Close.
func OpenLog(path string) (*Log, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open write log: %w", err)
	}
	info, err := f.Stat()
	var l *Log
	if err == nil {
		l, err = ReadLog(f, info.Size())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open write log %s: %w", path, err)
	}
	l.file = f
	return l, nil
}

// Close closes the file. No State of the log can be read after it.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// ReadLog reads the entries of a log of size bytes. A log that ends before the
// number of entries that its superblock names is an error.
func ReadLog(r io.ReaderAt, size int64) (*Log, error) {
	b := make([]byte, Sector)
	if err := readFull(r, b[:superSize], 0); err != nil {
		return nil, err
	}
	super, err := ParseSuper(b[:superSize])
	if err != nil {
		return nil, err
	}
	if super.Entries > uint64(size)/Sector {
		return nil, fmt.Errorf("%d entries cannot be in %d bytes", super.Entries, size)
	}
	l := &Log{data: r, Entries: make([]Logged, 0, super.Entries)}
	at, end := uint64(1), uint64(size)/Sector
	for n := range super.Entries {
		if at >= end {
			return nil, fmt.Errorf("entry %d of %d: %w", n, super.Entries, io.ErrUnexpectedEOF)
		}
		if err := readFull(r, b, int64(at)*Sector); err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, err)
		}
		e, err := ParseEntry(b)
		if err == nil {
			err = l.add(e, at+1, end)
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, err)
		}
		at += 1 + e.DataSectors()
	}
	return l, nil
}

// add takes an entry in, whose data begins at the sector at of a log of end sectors.
func (l *Log) add(e Entry, at, end uint64) error {
	if e.DataSectors() > end-at {
		return fmt.Errorf("%d sectors of data: %w", e.DataSectors(), io.ErrUnexpectedEOF)
	}
	entry := Logged{Entry: e, Image: -1, Data: at}
	if img, ok := parseImage(e); ok {
		if len(l.Entries) != len(l.Images) {
			return fmt.Errorf("image %s is declared behind other entries", img.Name)
		}
		if n := len(l.Images); n > 0 && img.Base < l.Images[n-1].Base+l.Images[n-1].Sectors {
			return fmt.Errorf("image %s overlaps the one before", img.Name)
		}
		l.Images = append(l.Images, img)
	}
	if !e.Has(FlagMark) {
		for i, img := range l.Images {
			if e.Sector >= img.Base && e.Sector-img.Base < img.Sectors && e.Sectors <= img.Sectors-(e.Sector-img.Base) {
				entry.Image = i
			}
		}
		if entry.Image < 0 {
			return fmt.Errorf("%d sectors at %d are in no image", e.Sectors, e.Sector)
		}
	}
	l.Entries = append(l.Entries, entry)
	return nil
}

// ReadData reads the data of entry n.
func (l *Log) ReadData(n int) ([]byte, error) {
	e := l.Entries[n]
	b := make([]byte, e.DataSectors()*Sector)
	return b, readFull(l.data, b, int64(e.Data)*Sector)
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
