package formats

// InodeRecord is what statx and name_to_handle_at would say of one inode.
type InodeRecord struct {
	Ino       uint64
	Size      uint64
	CtimeSec  int64
	MtimeSec  int64
	CtimeNsec uint32
	MtimeNsec uint32
	Gen       uint32
	Mode      uint32 // st_mode, with the type
	Nlink     uint32 // 0: unlinked but still open, or never linked
	UID, GID  uint32
}

// ScanTarget is the file system to scan. Device is its block device (or image);
// MountFD is a directory of it that is open for reading, ≤ 0 where it is not
// mounted. xfs and btrfs need MountFD, ext needs Device.
type ScanTarget struct {
	Device  string
	MountFD int
}

// ScanInfo says what a scan was.
type ScanInfo struct {
	Kind       string // ext-inode-table, xfs-bulkstat, btrfs-tree-search: a migrate.Proof's Kind
	Inodes     int64  // records delivered
	Generation uint64 // btrfs: the since of the next scan; 0 elsewhere
}

// ScanBatchSize is how many records a batch holds at most.
const ScanBatchSize = 4096

// Each adapts a function of one record to one of a batch.
func Each(fn func(InodeRecord) error) func([]InodeRecord) error {
	return func(batch []InodeRecord) error {
		for i := range batch {
			if err := fn(batch[i]); err != nil {
				return err
			}
		}
		return nil
	}
}
