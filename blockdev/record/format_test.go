package record_test

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
)

// The bytes are those of drivers/md/dm-log-writes.c, written down by hand.
func TestLayout(t *testing.T) {
	super := record.Super{Entries: 3, SectorSize: 512}.AppendTo(nil)
	want := make([]byte, 512)
	copy(want, []byte{0x72, 0x68, 0x73, 0x77, 0x66, 0x73, 0x6a, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0})
	if !bytes.Equal(super, want) {
		t.Errorf("superblock:\n%x\nwant\n%x", super, want)
	}
	entry := record.Entry{Sector: 0x0102, Flags: record.FlagMark, Mark: "hi"}.AppendTo(nil)
	want = make([]byte, 512)
	copy(want, []byte{2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 'h', 'i'})
	if !bytes.Equal(entry, want) {
		t.Errorf("entry:\n%x\nwant\n%x", entry, want)
	}
}

func TestEntriesComeBack(t *testing.T) {
	for _, e := range []record.Entry{
		{Sector: 8, Sectors: 16}, {Sector: 1, Flags: record.FlagFlush}, {Sectors: 9, Flags: record.FlagDiscard},
		{Sectors: 1, Flags: record.FlagFUA | record.FlagFlush | record.FlagMetadata}, {Flags: record.FlagMark, Mark: strings.Repeat("x", record.MaxMark)},
	} {
		got, err := record.ParseEntry(e.AppendTo(nil))
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v became %+v, %v", e, got, err)
		}
	}
}

// logOf is a log made of parts.
func logOf(entries ...any) []byte {
	n := uint64(0)
	var body []byte
	for _, e := range entries {
		switch e := e.(type) {
		case record.Entry:
			body, n = e.AppendTo(body), n+1
		case []byte:
			body = append(body, e...)
		}
	}
	return append(record.Super{Entries: n, SectorSize: 512}.AppendTo(nil), body...)
}

var image = record.Entry{Flags: record.FlagMark, Mark: "image a 2048"}

func TestDamagedLogs(t *testing.T) {
	sector := make([]byte, 512)
	good := logOf(image, record.Entry{Sectors: 1}, sector, record.Entry{Flags: record.FlagFlush})
	if _, err := record.ReadLog(bytes.NewReader(good), int64(len(good))); err != nil {
		t.Fatal(err)
	}
	patch := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for name, b := range map[string][]byte{
		"empty":            nil,
		"magic":            patch(0, 0),
		"version":          patch(8, 2),
		"sector size":      patch(25, 16),
		"too many entries": patch(16, 4),
		"cut short":        good[:len(good)-1],
		"data cut short":   good[:4*512],
		"unknown flag":     patch(512*2+16, 0x20),
		"outside":          logOf(image, record.Entry{Sector: 2047, Sectors: 2}, sector, sector),
		"no image":         logOf(record.Entry{Sectors: 1}, sector),
		"late image":       logOf(image, record.Entry{Flags: record.FlagFlush}, record.Entry{Sector: 2048, Flags: record.FlagMark, Mark: "image b 2048"}),
		"overlap":          logOf(image, record.Entry{Sector: 2047, Flags: record.FlagMark, Mark: "image b 2048"}),
		"long text":        patch(512+25, 9),
		"empty entry":      logOf(image, record.Entry{}),
		"a huge write":     logOf(image, record.Entry{Sector: 1, Sectors: 1 << 60}),
	} {
		if _, err := record.ReadLog(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: taken for a log", name)
		}
	}
}

// Whatever bytes a log has, reading it ends with an error or with entries of which each
// can be read and each cut can be made.
func FuzzReadLog(f *testing.F) {
	sector := bytes.Repeat([]byte{7}, 512)
	f.Add(logOf(image, record.Entry{Sector: 3, Sectors: 1}, sector, record.Entry{Flags: record.FlagFlush}, record.Entry{Sectors: 9, Flags: record.FlagDiscard}))
	f.Add(logOf(image, record.Entry{Sector: 2048, Flags: record.FlagMark, Mark: "image b 2048"}, record.Entry{Sector: 2050, Sectors: 2, Flags: record.FlagFUA}, sector, sector))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 28 && binary.LittleEndian.Uint64(b[16:]) > 64 {
			return // no log of that many entries comes out of the mutator
		}
		l, err := record.ReadLog(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		size := uint64(0)
		for _, img := range l.Images {
			size += img.Sectors
		}
		if size > 1<<20 {
			return
		}
		for n := range l.Entries {
			if _, err := l.ReadData(n); err != nil {
				t.Fatalf("entry %d: %v", n, err)
			}
			s, err := l.State(record.Cut{Entries: n + 1, Loss: record.LoseTorn, Seed: uint64(n)})
			if err != nil {
				t.Fatal(err)
			}
			for i := range l.Images {
				if _, err := s.Disk(i).ReadAt(make([]byte, s.Disk(i).Size()), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
