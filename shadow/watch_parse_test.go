package shadow

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// rawEvent builds one event as the kernel writes it.
func rawEvent(mask uint64, infos ...[]byte) []byte {
	b := make([]byte, metaBytes)
	b[4] = metaVersion
	binary.NativeEndian.PutUint16(b[6:], metaBytes)
	binary.NativeEndian.PutUint64(b[8:], mask)
	for _, i := range infos {
		b = append(b, i...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// rawInfo builds one information record with a handle, padded to 4 bytes.
func rawInfo(kind byte, typ int32, handle []byte, name string) []byte {
	b := make([]byte, fidBytes)
	b[0] = kind
	binary.NativeEndian.PutUint32(b[12:], uint32(len(handle)))
	binary.NativeEndian.PutUint32(b[16:], uint32(typ))
	b = append(b, handle...)
	if name != "" {
		b = append(append(b, name...), 0)
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func extHandle(ino, gen byte) []byte { return []byte{ino, 0, 0, 0, gen, 0, 0, 0} }

func TestParseEvents(t *testing.T) {
	const (
		fid, dfidName = unix.FAN_EVENT_INFO_TYPE_FID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME
		create, mod   = unix.FAN_CREATE, unix.FAN_MODIFY
	)
	c := &HandleCodec{typ: handleIno32}
	for _, tc := range []struct {
		name string
		in   []byte
		want []Event
		err  error
	}{
		{"nothing", nil, nil, nil},
		{"create", rawEvent(create, rawInfo(dfidName, 1, extHandle(2, 0), "a"), rawInfo(fid, 1, extHandle(12, 7), "")),
			[]Event{{Dir: Node{2, 0}, HasDir: true, Name: "a", Object: Node{12, 7}, HasObject: true, Mask: create}}, nil},
		{"modify leaves the parent out", rawEvent(mod, rawInfo(dfidName, 1, extHandle(2, 0), "a"), rawInfo(fid, 1, extHandle(12, 7), "")),
			[]Event{{Object: Node{12, 7}, HasObject: true, Mask: mod}}, nil},
		{"a directory's own attributes", rawEvent(unix.FAN_ATTRIB|unix.FAN_ONDIR, rawInfo(dfidName, 1, extHandle(9, 1), ".")),
			[]Event{{Object: Node{9, 1}, HasObject: true, IsDir: true, Mask: unix.FAN_ATTRIB | unix.FAN_ONDIR}}, nil},
		{"overflow", rawEvent(unix.FAN_Q_OVERFLOW), []Event{{Overflow: true, Mask: unix.FAN_Q_OVERFLOW}}, nil},
		{"overflow with an empty handle", rawEvent(unix.FAN_Q_OVERFLOW, rawInfo(fid, 0xff, nil, "")), []Event{{Overflow: true, Mask: unix.FAN_Q_OVERFLOW}}, nil},
		{"no handle at all", rawEvent(mod), []Event{{Overflow: true, Mask: mod}}, nil},
		{"unknown handle", rawEvent(mod, rawInfo(fid, 0x33, extHandle(1, 1), "")), []Event{{Overflow: true, Mask: mod}}, nil},
		{"known directory, unknown object", rawEvent(create, rawInfo(dfidName, 1, extHandle(2, 0), "a"), rawInfo(fid, 0x33, extHandle(1, 1), "")),
			[]Event{{Overflow: true, Mask: create}}, nil},
		{"unknown information", rawEvent(mod, rawInfo(99, 0, nil, ""), rawInfo(fid, 1, extHandle(12, 7), "")),
			[]Event{{Object: Node{12, 7}, HasObject: true, Mask: mod}}, nil},
		{"error of the volume", rawEvent(unix.FAN_FS_ERROR, rawInfo(fid, 0xff, nil, "")), []Event{{Mask: unix.FAN_FS_ERROR}}, nil},
		{"short metadata", make([]byte, 10), nil, ErrEvents},
		{"length beyond the buffer", rawEvent(mod)[:metaBytes-1], nil, ErrEvents},
		{"handle beyond its record", func() []byte {
			i := rawInfo(fid, 1, extHandle(1, 1), "")
			binary.NativeEndian.PutUint32(i[12:], 1<<31)
			return rawEvent(mod, i)
		}(), nil, ErrEvents},
		{"record of no length", rawEvent(mod, make([]byte, 4)), nil, ErrEvents},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []Event
			err := ParseEvents(tc.in, c, func(ev Event) { got = append(got, ev) })
			if !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			if len(got) != len(tc.want) {
				t.Fatalf("got %+v, want %+v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("got %+v, want %+v", got[i], tc.want[i])
				}
			}
		})
	}
	b := &HandleCodec{typ: handleBtrfs, rootID: 5}
	if err := ParseEvents(rawEvent(mod, rawInfo(fid, handleBtrfs, make([]byte, 20), "")), b, func(ev Event) {
		t.Errorf("event of another subvolume: %+v", ev)
	}); err != nil {
		t.Error(err)
	}
}

func TestParseEventsAllocatesNothing(t *testing.T) {
	c := &HandleCodec{typ: handleIno32}
	in := rawEvent(unix.FAN_MODIFY, rawInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, 1, extHandle(2, 0), "a name"),
		rawInfo(unix.FAN_EVENT_INFO_TYPE_FID, 1, extHandle(12, 7), ""))
	n := 0
	allocs := testing.AllocsPerRun(100, func() {
		if err := ParseEvents(in, c, func(Event) { n++ }); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 || n == 0 {
		t.Errorf("%v allocations, %d events", allocs, n)
	}
}

func TestMarkFrom(t *testing.T) {
	s := memStore(t, nil)
	dir, obj := Node{2, 0}, Node{12, 7}
	for _, tc := range []struct {
		ev       Event
		dir, obj What
		all      bool
	}{
		{Event{Mask: unix.FAN_CREATE, Dir: dir, HasDir: true, Object: obj, HasObject: true}, Entries | Attrs, Attrs | Links, false},
		{Event{Mask: unix.FAN_DELETE, Dir: dir, HasDir: true}, Entries | Attrs, 0, false},
		{Event{Mask: unix.FAN_MODIFY, Object: obj, HasObject: true}, 0, Data | Attrs, false},
		{Event{Mask: unix.FAN_CLOSE_WRITE, Object: obj, HasObject: true}, 0, Data | Attrs, false},
		{Event{Mask: unix.FAN_ATTRIB, Object: obj, HasObject: true}, 0, Attrs, false},
		{Event{Mask: unix.FAN_ATTRIB | unix.FAN_MODIFY, Object: obj, HasObject: true}, 0, Data | Attrs, false},
		{Event{Overflow: true}, 0, 0, true},
	} {
		j, err := newJournal(s, 'f', JournalOptions{})
		must(t, err)
		MarkFrom(tc.ev, j)
		all, _ := j.NeedRescan()
		if j.Dirty(dir) != tc.dir || j.Dirty(obj) != tc.obj || all != tc.all {
			t.Errorf("%+v: directory %#x, object %#x, all %v", tc.ev, j.Dirty(dir), j.Dirty(obj), all)
		}
	}
}

// FuzzParseEvents: no bytes make it panic, and no change is lost in silence: an
// event is delivered for every one that is not wholly of another volume.
func FuzzParseEvents(f *testing.F) {
	f.Add(rawEvent(unix.FAN_CREATE, rawInfo(2, 1, extHandle(2, 0), "a"), rawInfo(1, 1, extHandle(12, 7), "")), byte(0))
	f.Add(append(rawEvent(unix.FAN_Q_OVERFLOW), rawEvent(unix.FAN_MODIFY, rawInfo(1, 0x81, make([]byte, 12), ""))...), byte(1))
	f.Add(rawEvent(unix.FAN_MODIFY, rawInfo(1, 0x4d, make([]byte, 20), "")), byte(2))
	codecs := []*HandleCodec{{typ: handleIno32}, {typ: handleXFS64}, {typ: handleBtrfs, rootID: 5}}
	f.Fuzz(func(t *testing.T, b []byte, k byte) {
		err := ParseEvents(b, codecs[int(k)%len(codecs)], func(ev Event) {
			if !ev.Overflow && !ev.HasDir && !ev.HasObject && ev.Mask&unix.FAN_FS_ERROR == 0 {
				t.Errorf("event says nothing: %+v", ev)
			}
		})
		if err != nil && !errors.Is(err, ErrEvents) {
			t.Error(err)
		}
	})
}
