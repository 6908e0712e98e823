package shadow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Node is the identity of an object on one side: its inode number and its
// generation. A number that was freed and used again has another generation, so
// two Nodes are equal only when they are the same object. The zero Node is none.
type Node struct {
	Ino uint64
	Gen uint32
}

// IsZero reports whether n is no object.
func (n Node) IsZero() bool { return n == Node{} }

func (n Node) String() string { return fmt.Sprintf("%d/%08x", n.Ino, n.Gen) }

// ErrGone says that an object does not exist any more: its handle is stale. It wraps ESTALE.
var ErrGone = fmt.Errorf("object is gone: %w", unix.ESTALE)

// ErrForeign says that a handle is well formed but belongs to another volume
// or subvolume than the codec's.
var ErrForeign = errors.New("handle of another volume or subvolume")

// ErrHandle says that a handle has a type or a length that the codec does not know.
var ErrHandle = errors.New("unknown file handle")

// The handle layouts, little-endian and without padding, from the kernel's
// include/linux/exportfs.h, fs/xfs/xfs_export.h and fs/btrfs/export.h.
const (
	handleIno32 = 0x01 // ino32 gen32: ext2, ext3, ext4; xfs mounted with 32-bit inodes
	handleXFS64 = 0x81 // ino64 gen32
	handleBtrfs = 0x4d // objectid64 rootid64 gen32

	maxHandle = 128 // MAX_HANDLE_SZ
)

// rawHandle is struct file_handle with the largest body.
type rawHandle struct {
	bytes uint32
	typ   int32
	body  [maxHandle]byte
}

// HandleCodec translates between the kernel's file handles and Nodes of one
// volume. It is made from the handle of the volume's root, which says what kind of
// handle the file system gives and, on btrfs, which subvolume is meant. It is
// immutable and safe for concurrent use.
type HandleCodec struct {
	typ    int32  // type that Open makes
	rootID uint64 // btrfs: id of the subvolume
	root   Node
}

// NewHandleCodec makes the codec of the volume that rootFD (which may be O_PATH)
// is the root of.
func NewHandleCodec(rootFD int) (*HandleCodec, error) {
	var h rawHandle
	if errno := nameToHandle(rootFD, "", 0, &h); errno != 0 {
		return nil, fmt.Errorf("name_to_handle_at volume root: %w", errno)
	}
	c := &HandleCodec{typ: h.typ & 0xff}
	body := h.body[:h.bytes]
	if c.typ == handleBtrfs && len(body) == 20 {
		c.rootID = binary.LittleEndian.Uint64(body[8:])
	}
	root, err := c.Decode(h.typ, body)
	if err != nil {
		return nil, fmt.Errorf("decode handle of volume root: %w", err)
	}
	c.root = root
	return c, nil
}

// Root is the Node of the volume's root directory.
func (c *HandleCodec) Root() Node { return c.root }

// NodeAt is the Node of dirfd's entry name, or with name "" of dirfd itself
// (which may be O_PATH). Symbolic links are not followed unless flags has
// AT_SYMLINK_FOLLOW. Submounts are: give it a descriptor below a mount without any.
// It allocates nothing for names up to 255 bytes.
func (c *HandleCodec) NodeAt(dirfd int, name string, flags int) (Node, error) {
	var h rawHandle
	if errno := nameToHandle(dirfd, name, flags, &h); errno != 0 {
		return Node{}, fmt.Errorf("name_to_handle_at %q: %w", name, errno)
	}
	n, err := c.Decode(h.typ, h.body[:h.bytes])
	if err != nil {
		return Node{}, fmt.Errorf("decode handle of %q: %w", name, err)
	}
	return n, nil
}

// Decode is the Node of a handle of type typ and body b. The error is ErrHandle
// or ErrForeign.
func (c *HandleCodec) Decode(typ int32, b []byte) (Node, error) {
	// Above the low byte are flags about the handle (FILEID_USER_FLAGS), never its layout.
	switch typ & 0xff {
	case handleIno32:
		if len(b) == 8 && c.typ != handleBtrfs {
			return Node{uint64(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:])}, nil
		}
	case handleXFS64:
		if len(b) == 12 && c.typ != handleBtrfs {
			return Node{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])}, nil
		}
	case handleBtrfs:
		if len(b) == 20 && c.typ == handleBtrfs {
			if binary.LittleEndian.Uint64(b[8:]) != c.rootID {
				return Node{}, ErrForeign
			}
			return Node{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[16:])}, nil
		}
	}
	return Node{}, ErrHandle
}

// encode makes the handle of n.
func (c *HandleCodec) encode(n Node, h *rawHandle) error {
	h.typ = c.typ
	switch c.typ {
	case handleIno32:
		if n.Ino>>32 != 0 {
			return ErrHandle
		}
		binary.LittleEndian.PutUint32(h.body[0:], uint32(n.Ino))
		binary.LittleEndian.PutUint32(h.body[4:], n.Gen)
		h.bytes = 8
	case handleXFS64:
		binary.LittleEndian.PutUint64(h.body[0:], n.Ino)
		binary.LittleEndian.PutUint32(h.body[8:], n.Gen)
		h.bytes = 12
	case handleBtrfs:
		binary.LittleEndian.PutUint64(h.body[0:], n.Ino)
		binary.LittleEndian.PutUint64(h.body[8:], c.rootID)
		binary.LittleEndian.PutUint32(h.body[16:], n.Gen)
		h.bytes = 20
	default:
		return ErrHandle
	}
	return nil
}

// Open opens the object n through the mount that mountFD (not O_PATH: the kernel
// refuses) lies on, wherever the object has been moved to. flags are those of open:
// O_PATH|O_NOFOLLOW for any type, O_RDONLY|O_NOATIME for files and directories. An object that does
// not exist any more is ErrGone, one that is unlinked but open is opened.
func (c *HandleCodec) Open(mountFD int, n Node, flags int) (int, error) {
	var h rawHandle
	if err := c.encode(n, &h); err != nil {
		return -1, fmt.Errorf("encode handle %v: %w", n, err)
	}
	for {
		fd, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(mountFD),
			uintptr(unsafe.Pointer(&h)), uintptr(flags|unix.O_CLOEXEC))
		switch errno {
		case 0:
			return c.checked(int(fd), n)
		case unix.EINTR:
			continue
		case unix.ESTALE:
			return -1, ErrGone
		}
		return -1, fmt.Errorf("open_by_handle_at %v: %w", n, errno)
	}
}

// checked closes fd when it is not n after all: ext takes generation 0 in a
// handle for "any generation", so that an inode number used again would be opened.
func (c *HandleCodec) checked(fd int, n Node) (int, error) {
	if n.Gen != 0 {
		return fd, nil
	}
	is, err := c.NodeAt(fd, "", 0)
	if err == nil && is == n {
		return fd, nil
	}
	unix.Close(fd)
	if err == nil {
		err = ErrGone
	}
	return -1, err
}

// nameToHandle is name_to_handle_at without an allocation. The buffers stay on the stack.
func nameToHandle(dirfd int, name string, flags int, h *rawHandle) unix.Errno {
	var short [256]byte
	path := short[:]
	if len(name) >= len(short) {
		path = make([]byte, len(name)+1)
	}
	for i := 0; i < len(name); i++ {
		if name[i] == 0 {
			return unix.EINVAL
		}
		path[i] = name[i]
	}
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var mountID int32
	h.bytes = maxHandle
	_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(dirfd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&mountID)), uintptr(flags), 0)
	if errno == 0 && h.bytes > maxHandle {
		return unix.EOVERFLOW
	}
	return errno
}
