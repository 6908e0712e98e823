package e2e

import "time"

// pair is a change of format that is tested.
type pair struct {
	name    string
	spec    string // how the source is made
	to      string // --to
	waive   []string
	without string        // kinds of operations that one of the two cannot hold
	back    time.Duration // what the source keeps of an mtime; 0: nanoseconds
}

// pairs are those that must work. Project ids are left out where ext4 or btrfs is
// involved: the one needs a quota format that a kernel may lack, the other has none.
var pairs = []pair{
	{name: "ext4-128_to_xfs", spec: "ext4-128", to: "xfs", without: "project", back: time.Second},
	{name: "ext4-128_to_btrfs", spec: "ext4-128", to: "btrfs", without: "project", back: time.Second},
	{name: "ext4-128_to_ext4", spec: "ext4-128", to: "ext4:inode_size=256", without: "project", back: time.Second},
	{name: "xfs_to_ext4", spec: "xfs", to: "ext4", without: "project"},
	{name: "xfs_to_btrfs", spec: "xfs", to: "btrfs", without: "project"},
	{name: "btrfs_to_xfs", spec: "btrfs", to: "xfs", without: "project"},
}

// fstypeOf is the file system type of a spec such as "ext4-128" or "ext4:inode_size=256".
func fstypeOf(spec string) string {
	for i, r := range spec {
		if r == '-' || r == ':' {
			return spec[:i]
		}
	}
	return spec
}
