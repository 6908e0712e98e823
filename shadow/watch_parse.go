package shadow

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Event is one change that the watch heard of. It says what may differ now, never
// what happened: the kernel merges events, and their order is not that of the changes (I4).
type Event struct {
	Dir       Node   // the directory whose entries changed; only of creations, deletions and moves
	Name      string // the entry that changed; "" when not known
	Object    Node   // the object that changed, or that the entry names
	Mask      uint64 // FAN_*
	HasDir    bool
	HasObject bool
	Overflow  bool // events were lost: anything may have changed
	IsDir     bool // Object is a directory
}

// entryEvents are the events about a directory's entries. Others carry the parent and the
// name by which the file was opened too, which says nothing of what changed and is left out.
const entryEvents = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO | unix.FAN_RENAME

// ErrEvents says that the bytes are no fanotify events.
var ErrEvents = errors.New("malformed fanotify events")

// Layout of struct fanotify_event_metadata and struct fanotify_event_info_fid,
// native byte order; include/uapi/linux/fanotify.h.
const (
	metaBytes   = 24
	metaVersion = 3
	infoBytes   = 4             // header: type, pad, length
	fidBytes    = 4 + 8 + 4 + 4 // header, fsid, handle_bytes, handle_type
)

// ParseEvents calls fn for every event in b. Handles of other volumes and unknown
// information are passed over; an event that cannot be placed at all is an
// Overflow, since a change that is not understood may be any change. It returns
// ErrEvents when the bytes make no sense, having called fn for those that did.
func ParseEvents(b []byte, c *HandleCodec, fn func(Event)) error {
	for len(b) > 0 {
		if len(b) < metaBytes {
			return ErrEvents
		}
		size := int(binary.NativeEndian.Uint32(b))
		head := int(binary.NativeEndian.Uint16(b[6:]))
		if size < metaBytes || size > len(b) || head < metaBytes || head > size || b[4] != metaVersion {
			return ErrEvents
		}
		mask := binary.NativeEndian.Uint64(b[8:])
		ev := Event{Mask: mask, IsDir: mask&unix.FAN_ONDIR != 0}
		foreign, err := parseInfo(b[head:size], &ev, c)
		if err != nil {
			return err
		}
		b = b[size:]
		switch {
		case ev.Overflow, mask&unix.FAN_Q_OVERFLOW != 0:
			ev = Event{Mask: mask, Overflow: true}
		case ev.HasDir, ev.HasObject, mask&unix.FAN_FS_ERROR != 0:
		case foreign:
			continue
		default:
			ev.Overflow = true
		}
		fn(ev)
	}
	return nil
}

// parseInfo reads the information records of one event. foreign says that a
// handle of another volume or subvolume was among them. A handle that is not
// understood makes the event an Overflow.
func parseInfo(b []byte, ev *Event, c *HandleCodec) (foreign bool, err error) {
	for len(b) > 0 {
		if len(b) < infoBytes {
			return foreign, ErrEvents
		}
		size := int(binary.NativeEndian.Uint16(b[2:]))
		if size < infoBytes || size > len(b) {
			return foreign, ErrEvents
		}
		info := b[:size]
		b = b[size:]
		switch info[0] {
		case unix.FAN_EVENT_INFO_TYPE_FID, unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME,
			unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
		default:
			continue // a pidfd, an error, what later kernels tell
		}
		n, name, err := parseFID(info, c)
		switch {
		case errors.Is(err, ErrForeign):
			foreign = true
		case errors.Is(err, ErrHandle):
			ev.Overflow = ev.Mask&unix.FAN_FS_ERROR == 0
		case err != nil:
			return foreign, err
		case info[0] == unix.FAN_EVENT_INFO_TYPE_FID:
			ev.Object, ev.HasObject = n, true
		default:
			setDir(ev, n, name)
		}
	}
	return foreign, nil
}

// setDir puts a directory's handle where it belongs. An event on a directory
// itself (its attributes) comes with it as parent and the name ".".
func setDir(ev *Event, n Node, name []byte) {
	if ev.Mask&entryEvents != 0 {
		ev.Dir, ev.HasDir, ev.Name = n, true, string(name)
		return
	}
	if !ev.HasObject && (len(name) == 0 || string(name) == ".") {
		ev.Object, ev.HasObject = n, true
	}
}

// parseFID reads one handle and the name behind it, if there is one.
func parseFID(b []byte, c *HandleCodec) (Node, []byte, error) {
	if len(b) < fidBytes {
		return Node{}, nil, ErrEvents
	}
	n := binary.NativeEndian.Uint32(b[12:])
	typ := int32(binary.NativeEndian.Uint32(b[16:]))
	b = b[fidBytes:]
	if uint64(n) > uint64(len(b)) {
		return Node{}, nil, ErrEvents
	}
	node, err := c.Decode(typ, b[:n])
	name := b[n:]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return node, name, err
}

// MarkFrom maps an event to marks.
func MarkFrom(ev Event, j *Journal) {
	if ev.Overflow {
		j.MarkAll("the kernel lost events")
		return
	}
	if ev.HasDir {
		j.Mark(ev.Dir, Entries|Attrs)
	}
	if !ev.HasObject {
		return
	}
	var w What
	if ev.Mask&entryEvents != 0 {
		w |= Attrs | Links
	}
	if ev.Mask&(unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE) != 0 {
		w |= Data | Attrs
	}
	if ev.Mask&unix.FAN_ATTRIB != 0 {
		w |= Attrs
	}
	j.Mark(ev.Object, w)
}
