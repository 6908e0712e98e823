package record

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// MarksFile is the name of the file through which marks are put into the log: each
// write(2) to it is one.
const MarksFile = "marks"

// Service is what Serve shows: files by the images' names, and MarksFile if Mark is set.
type Service struct {
	Images []Image
	Disks  []Disk
	Mark   func(text string) error
	Tell   func() string // what reading MarksFile gives; nil: nothing
}

// maxIO is the largest read or write that is served at once, in bytes.
const maxIO = 1 << 20

// Serve answers on the descriptor of a connection until its mount is gone: that is how
// whoever uses it ends it. done is closed then.
//
// Nobody in this process may use what lies on a loop over one of its files, nor wait for
// somebody who does: such a wait never ends.
func Serve(fd int, s Service) (done <-chan struct{}, err error) {
	server, err := fuse.NewServer(&files{RawFileSystem: fuse.NewDefaultRawFileSystem(), s: s}, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite: maxIO, MaxBackground: 128, DisableXAttrs: true, IgnoreSecurityLabels: true, DisableReadDirPlus: true, DisableSplice: true,
	})
	if err != nil {
		return nil, fmt.Errorf("serve images: %w", err)
	}
	ended := make(chan struct{})
	go func() { server.Serve(); close(ended) }()
	return ended, nil
}

// files is the mount: the root is inode 1, MarksFile 2, the images from 3 on.
type files struct {
	fuse.RawFileSystem
	s Service
}

const (
	rootInode  = fuse.FUSE_ROOT_ID
	marksInode = rootInode + 1
	firstImage = marksInode + 1
	forever    = uint64(24 * time.Hour / time.Second)
)

func (f *files) String() string { return "record" }

func (f *files) disk(inode uint64) Disk {
	if inode < firstImage || inode-firstImage >= uint64(len(f.s.Disks)) {
		return nil
	}
	return f.s.Disks[inode-firstImage]
}

func (f *files) names() (names []string, inodes []uint64) {
	if f.s.Mark != nil {
		names, inodes = append(names, MarksFile), append(inodes, marksInode)
	}
	for i, img := range f.s.Images {
		names, inodes = append(names, img.Name), append(inodes, firstImage+uint64(i))
	}
	return names, inodes
}

func (f *files) attr(inode uint64, a *fuse.Attr) fuse.Status {
	a.Ino, a.Nlink, a.Blksize = inode, 1, page
	switch d := f.disk(inode); {
	case inode == rootInode:
		a.Mode, a.Nlink = syscall.S_IFDIR|0o700, 2
	case inode == marksInode:
		a.Mode = syscall.S_IFREG | 0o600
	case d == nil:
		return fuse.ENOENT
	default:
		a.Mode, a.Size, a.Blocks = syscall.S_IFREG|0o600, uint64(d.Size()), uint64(d.Size())/Sector
	}
	return fuse.OK
}

func (f *files) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	names, inodes := f.names()
	for i, n := range names {
		if n == name && h.NodeId == rootInode {
			out.NodeId, out.EntryValid, out.AttrValid = inodes[i], forever, forever
			return f.attr(inodes[i], &out.Attr)
		}
	}
	return fuse.ENOENT
}

func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = forever
	return f.attr(in.NodeId, &out.Attr)
}

// SetAttr lets a shell open the marks as it opens files. An image keeps its size.
func (f *files) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId != marksInode {
		return fuse.EPERM
	}
	return f.attr(in.NodeId, &out.Attr)
}

func (f *files) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == marksInode {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE
	}
	return fuse.OK
}

func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d := f.disk(in.NodeId)
	if in.NodeId == marksInode && f.s.Tell != nil && in.Offset == 0 {
		return fuse.ReadResultData([]byte(f.s.Tell())), fuse.OK
	}
	if d == nil {
		return fuse.ReadResultData(nil), fuse.OK
	}
	off := int64(in.Offset)
	if off%Sector != 0 || len(buf)%Sector != 0 {
		return nil, fuse.EINVAL // as a disk says that is used without a cache; qemu asks what its sectors are
	}
	n := min(int64(len(buf)), d.Size()-off)
	if n <= 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	if _, err := d.ReadAt(buf[:n], off); err != nil {
		return nil, failed("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *files) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if in.NodeId == marksInode {
		if err := f.s.Mark(string(data)); err != nil {
			return 0, failed("mark", err)
		}
		return uint32(len(data)), fuse.OK
	}
	d := f.disk(in.NodeId)
	if d == nil {
		return 0, fuse.EBADF
	}
	n, err := d.WriteAt(data, int64(in.Offset))
	if err != nil {
		return 0, failed("write", err)
	}
	return uint32(n), fuse.OK
}

func (f *files) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	d := f.disk(in.NodeId)
	if d == nil {
		return fuse.OK
	}
	if err := d.Sync(); err != nil {
		return failed("sync", err)
	}
	return fuse.OK
}

// Fallocate is what a loop makes of discards and of writes of zeros.
func (f *files) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	d := f.disk(in.NodeId)
	const known = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if d == nil || in.Mode&^known != 0 || in.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	if err := d.Discard(int64(in.Offset), int64(in.Length)); err != nil {
		return failed("discard", err)
	}
	return fuse.OK
}

func (f *files) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (f *files) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	names, inodes := f.names()
	for i := int(in.Offset); i < len(names); i++ {
		if !out.AddDirEntry(fuse.DirEntry{Name: names[i], Ino: inodes[i], Mode: syscall.S_IFREG, Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.OK
}

func (f *files) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func failed(what string, err error) fuse.Status {
	if errno, asked := err.(syscall.Errno); asked { // a Faulty's
		return fuse.Status(errno)
	}
	fmt.Fprintf(os.Stderr, "record: %s: %v\n", what, err)
	return fuse.EIO
}
