package churn

// Kind names an operation; the names are what the log holds.
type Kind string

// Operations on the namespace: the tree's lock is held exclusively.
const (
	Create   Kind = "create"
	Mkdir    Kind = "mkdir"
	Symlink  Kind = "symlink"
	Mknod    Kind = "mknod"
	Tmpfile  Kind = "tmpfile" // O_TMPFILE, written, then linked
	Link     Kind = "link"
	Unlink   Kind = "unlink"
	Rmdir    Kind = "rmdir"
	Rename   Kind = "rename"
	Exchange Kind = "exchange"
)

// Operations on a file's content: the object's own lock is held.
const (
	Write    Kind = "write"
	Direct   Kind = "direct" // O_DIRECT
	Truncate Kind = "truncate"
	Punch    Kind = "punch"
	ZeroOut  Kind = "zero"
	Allocate Kind = "allocate" // grows the size
	Reserve  Kind = "reserve"  // keeps the size
	Store    Kind = "store"    // through a shared mapping
	CopyIn   Kind = "copy"     // copy_file_range
	Clone    Kind = "clone"    // FICLONE
)

// Operations on attributes: the tree's lock is shared, the object's is held.
const (
	Chmod    Kind = "chmod"
	Chown    Kind = "chown"
	Utimes   Kind = "utimes"
	SetXattr Kind = "setxattr"
	DelXattr Kind = "delxattr"
	Chattr   Kind = "chattr"
	Project  Kind = "project"
)

// Records of the log that are no operations.
const (
	Open    Kind = "open"    // a volume was opened: the root's attributes
	Quiesce Kind = "quiesce" // every descriptor and mapping is closed
)

// Op is one operation with everything that is needed to do it again.
type Op struct {
	N      int64  `json:"n"` // number in the log; an end carries the number of its begin
	Kind   Kind   `json:"op"`
	Worker int    `json:"w,omitempty"`
	Node   int64  `json:"node,omitempty"` // the object, or the new object's id
	Dir    int64  `json:"dir,omitempty"`  // its parent
	Name   []byte `json:"name,omitempty"`
	ToDir  int64  `json:"todir,omitempty"`
	ToName []byte `json:"toname,omitempty"`
	From   int64  `json:"from,omitempty"` // the object that content is copied from
	Off    int64  `json:"off,omitempty"`
	At     int64  `json:"at,omitempty"` // copy: the offset in From
	Len    int64  `json:"len,omitempty"`
	Seed   uint64 `json:"seed,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	Rdev   uint64 `json:"rdev,omitempty"`
	Sec    int64  `json:"sec,omitempty"`
	Nsec   int64  `json:"nsec,omitempty"`
	Xattr  string `json:"xattr,omitempty"`
	Value  []byte `json:"value,omitempty"` // xattr value, symlink target
	Flags  uint32 `json:"flags,omitempty"`
}

// Result is what an operation came to.
type Result struct {
	Err    string          `json:"err,omitempty"` // the errno's name: no effect
	Unsure bool            `json:"unsure,omitempty"`
	Done   int64           `json:"done,omitempty"`  // bytes, where fewer than asked for can be
	Attrs  map[int64]Attrs `json:"attrs,omitempty"` // read back right after
}

// record is one line of the log.
type record struct {
	Op     *Op     `json:"begin,omitempty"`
	N      int64   `json:"end,omitempty"`
	Result *Result `json:"result,omitempty"`
	Header *Header `json:"header,omitempty"`
}

// Header is the first line of a log: how the churn was started.
type Header struct {
	Dir     string  `json:"dir"`
	Options Options `json:"options"`
}

// content says whether k changes a file's content.
func (k Kind) content() bool {
	switch k {
	case Write, Direct, Truncate, Punch, ZeroOut, Allocate, Reserve, Store, CopyIn, Clone:
		return true
	}
	return false
}

// attribute says whether k changes attributes only.
func (k Kind) attribute() bool {
	switch k {
	case Chmod, Chown, Utimes, SetXattr, DelXattr, Chattr, Project:
		return true
	}
	return false
}
