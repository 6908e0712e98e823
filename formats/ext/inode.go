package ext

import (
	"encoding/binary"

	"github.com/fsmigrate/fsmigrate/formats"
)

const flagEAInode = 0x00200000 // the inode holds another's attribute value and has no name

// decoder turns raw inodes of one file system into records.
type decoder struct {
	dirHigh bool // large_dir: size_hi counts for directories too
}

// decode fills rec from one raw inode of d.size bytes and reports whether it is
// an object: false for one that is being made, and for one that only holds
// another's attribute value.
func (d *decoder) decode(b []byte, ino uint64, rec *formats.InodeRecord) bool {
	_ = b[127]
	mode := binary.LittleEndian.Uint16(b)
	links := binary.LittleEndian.Uint16(b[26:])
	if mode == 0 || binary.LittleEndian.Uint32(b[32:])&flagEAInode != 0 {
		return false
	}
	size := uint64(binary.LittleEndian.Uint32(b[4:]))
	if mode&0o170000 == 0o100000 || d.dirHigh {
		size |= uint64(binary.LittleEndian.Uint32(b[108:])) << 32
	}
	rec.Ino = ino
	rec.Gen = binary.LittleEndian.Uint32(b[100:])
	rec.Size = size
	rec.Mode = uint32(mode)
	rec.Nlink = uint32(links)
	rec.UID = uint32(binary.LittleEndian.Uint16(b[2:])) | uint32(binary.LittleEndian.Uint16(b[120:]))<<16
	rec.GID = uint32(binary.LittleEndian.Uint16(b[24:])) | uint32(binary.LittleEndian.Uint16(b[122:]))<<16
	rec.CtimeSec, rec.CtimeNsec = int64(int32(binary.LittleEndian.Uint32(b[12:]))), 0
	rec.MtimeSec, rec.MtimeNsec = int64(int32(binary.LittleEndian.Uint32(b[16:]))), 0
	if len(b) >= 140 {
		extra := int(binary.LittleEndian.Uint16(b[128:]))
		if extra >= 8 {
			rec.CtimeSec, rec.CtimeNsec = extend(rec.CtimeSec, binary.LittleEndian.Uint32(b[132:]))
		}
		if extra >= 12 {
			rec.MtimeSec, rec.MtimeNsec = extend(rec.MtimeSec, binary.LittleEndian.Uint32(b[136:]))
		}
	}
	return true
}

// extend adds a time's extra word.
func extend(sec int64, extra uint32) (int64, uint32) {
	return sec + int64(extra&3)<<32, extra >> 2
}
