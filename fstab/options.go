package fstab

import (
	"slices"
	"strings"
)

// vfsOptions are the options that mean the same for every format: flags of
// the mount or of the generic superblock.
var vfsOptions = set("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec",
	"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
	"nostrictatime", "symfollow", "nosymfollow", "sync", "async", "dirsync", "lazytime", "nolazytime",
	"iversion", "noiversion", "mand", "nomand", "silent", "loud", "defaults")

// userOptions are read by mount(8) and systemd and never reach the kernel.
var userOptions = set("auto", "noauto", "user", "nouser", "users", "owner", "group",
	"nofail", "_netdev", "comment", "loop", "offset", "sizelimit", "helper", "uhelper")

// labelOptions are the security labels, the same for every format that stores attributes.
var labelOptions = set("context", "fscontext", "defcontext", "rootcontext", "seclabel",
	"smackfsdef", "smackfsroot", "smackfstransmute")

// superOptions lists, per format, the options of its own that a new volume may be
// mounted with, after ext4(5), xfs(5) and btrfs(5). One that another format
// gives a different meaning is carried nowhere but to the format it came from.
var superOptions = map[string]map[string]bool{
	"ext2": set("acl", "noacl", "user_xattr", "nouser_xattr", "errors", "resuid", "resgid", "grpid", "nogrpid",
		"bsdgroups", "sysvgroups", "minixdf", "bsddf", "nouid32", "oldalloc", "orlov", "sb", "debug", "check", "nocheck",
		"usrquota", "grpquota", "quota", "noquota"),
	"ext3": set("acl", "noacl", "user_xattr", "nouser_xattr", "errors", "resuid", "resgid", "grpid", "nogrpid",
		"bsdgroups", "sysvgroups", "minixdf", "bsddf", "nouid32", "oldalloc", "orlov", "sb", "debug", "check", "nocheck",
		"usrquota", "grpquota", "quota", "noquota", "usrjquota", "grpjquota", "jqfmt",
		"data", "data_err", "commit", "barrier", "nobarrier", "journal_path", "journal_dev", "noload", "norecovery"),
	"ext4": set("acl", "noacl", "user_xattr", "nouser_xattr", "errors", "resuid", "resgid", "grpid", "nogrpid",
		"bsdgroups", "sysvgroups", "minixdf", "bsddf", "nouid32", "oldalloc", "orlov", "sb", "debug", "check", "nocheck",
		"usrquota", "grpquota", "prjquota", "quota", "noquota", "usrjquota", "grpjquota", "jqfmt",
		"data", "data_err", "commit", "barrier", "nobarrier", "journal_path", "journal_dev", "noload", "norecovery",
		"journal_checksum", "nojournal_checksum", "journal_async_commit", "journal_ioprio", "delalloc", "nodelalloc",
		"min_batch_time", "max_batch_time", "stripe", "discard", "nodiscard", "block_validity", "noblock_validity",
		"dioread_lock", "dioread_nolock", "nodioread_nolock", "max_dir_size_kb", "i_version", "auto_da_alloc",
		"noauto_da_alloc", "init_itable", "noinit_itable", "inode_readahead_blks", "inlinecrypt", "dax",
		"nombcache", "mb_optimize_scan", "prefetch_block_bitmaps", "no_prefetch_block_bitmaps"),
	"xfs": set("allocsize", "attr2", "noattr2", "dax", "discard", "nodiscard", "grpid", "bsdgroups", "nogrpid", "sysvgroups",
		"filestreams", "ikeep", "noikeep", "inode32", "inode64", "largeio", "nolargeio", "logbufs", "logbsize", "logdev",
		"noalign", "norecovery", "nouuid", "quota", "noquota", "uquota", "usrquota", "uqnoenforce", "gquota", "grpquota",
		"gqnoenforce", "pquota", "prjquota", "pqnoenforce", "qnoenforce", "quota", "rtdev", "sunit", "swidth", "swalloc",
		"wsync", "max_atomic_write"),
	"btrfs": set("acl", "noacl", "autodefrag", "noautodefrag", "barrier", "nobarrier", "check_int", "clear_cache", "commit",
		"compress", "compress-force", "datacow", "nodatacow", "datasum", "nodatasum", "degraded", "device",
		"discard", "nodiscard", "enospc_debug", "noenospc_debug", "fatal_errors", "flushoncommit", "noflushoncommit",
		"fragment", "max_inline", "metadata_ratio", "rescan_uuid_tree", "rescue", "skip_balance", "space_cache",
		"nospace_cache", "ssd", "ssd_spread", "nossd", "nossd_spread", "subvol", "subvolid", "thread_pool",
		"treelog", "notreelog", "usebackuproot", "user_subvol_rm_allowed"),
}

// bound names the options that describe one volume's layout or devices and are
// wrong on any other, also on one of the same format.
var bound = set("sb", "journal_path", "journal_dev", "logdev", "rtdev", "sunit", "swidth", "stripe", "subvol",
	"subvolid", "device", "nouuid", "noload", "norecovery", "rescue", "usebackuproot", "degraded",
	"loop", "offset", "sizelimit", "helper", "uhelper", "seclabel")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// Split cuts an option string at its commas; a comma inside double quotes
// (context="system_u:object_r:x:s0:c1,c2") does not count. Empty options are dropped.
func Split(options string) []string {
	var out []string
	start, quoted := 0, false
	for i := 0; i <= len(options); i++ {
		if i < len(options) && options[i] == '"' {
			quoted = !quoted
		}
		if i == len(options) || options[i] == ',' && !quoted {
			if i > start {
				out = append(out, options[start:i])
			}
			start = i + 1
		}
	}
	return out
}

// Key is the name of one option: "data" of "data=journal".
func Key(option string) string {
	k, _, _ := strings.Cut(option, "=")
	return k
}

// IsVFS reports whether option means the same for every format.
func IsVFS(option string) bool { return vfsOptions[option] }

// IsUser reports whether option is for mount(8) or systemd and not for the kernel.
func IsUser(option string) bool {
	k := Key(option)
	return userOptions[k] || strings.HasPrefix(k, "x-") || strings.HasPrefix(k, "X-")
}

// IsSecurity reports whether option is a security label.
func IsSecurity(option string) bool { return labelOptions[Key(option)] }

// Translate says which of options a volume of format `to` is mounted with, when
// it replaces one of format `from`. Flags of the VFS, options of mount(8) and
// security labels are kept; what `to` does not know, or what describes the old
// volume itself, is dropped and returned, so that nothing disappears in silence.
func Translate(options, from, to string) (kept string, dropped []string) {
	var keep []string
	for _, o := range Split(options) {
		k := Key(o)
		switch {
		case bound[k]:
			dropped = append(dropped, o)
		case from == to:
			keep = append(keep, o)
		case IsVFS(o) || IsUser(o) || IsSecurity(o):
			keep = append(keep, o)
		case superOptions[to][k] && carries(o, from, to):
			keep = append(keep, o)
		default:
			dropped = append(dropped, o)
		}
	}
	return strings.Join(keep, ","), dropped
}

// carries reports whether option o, known to both formats, means the same in both.
// "commit" is seconds in ext4 and btrfs; quota words switch accounting on in one and name
// user-space files in the other, but ask for the same thing.
func carries(o, from, to string) bool {
	if !superOptions[from][Key(o)] {
		return false
	}
	if extFamily(from) && extFamily(to) {
		return true
	}
	return slices.Contains([]string{"acl", "noacl", "discard", "nodiscard", "commit", "barrier", "nobarrier", "grpid", "bsdgroups",
		"nogrpid", "sysvgroups", "usrquota", "grpquota", "prjquota", "noquota", "dax"}, Key(o))
}

func extFamily(f string) bool { return strings.HasPrefix(f, "ext") }
