package shadow

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// Flags of a Record.
const (
	Verified uint8 = 1 << iota // read back through the other side's own reader and found equal, after it was copied
	Racy                       // copied within its stamp's granularity: its Print proves nothing
	Sparse                     // holes were carried
	NoDigest                   // a file whose Digest was of another definition, and is not set
	Linked                     // has, or had, several names
	Waived                     // differs in ways that the plan waives
	Limbo                      // stands in the other side's limbo: it has no name on this side
	Doubted                    // a file over which a power cut came: its Print does not vouch for what this side holds
)

// Record is what the node map knows of one object: where it stands on the other
// side, and the state in which it was copied.
type Record struct {
	To     Node   // the object on the other side
	Type   uint8  // S_IFMT>>12
	Flags  uint8  // Verified, Racy …
	Epoch  uint64 // of the copy; durable once the journal's epoch reaches it
	Print  Print  // of this side's inode, as it was copied; 0: do not trust
	Size   int64  // bytes copied
	Digest [32]byte
	Parent Node   // directories: the directory on the other side that To stands in
	Name   string // directories: To's name there
}

// ErrRecord says that a stored record cannot be read (I8: it is not guessed at).
var ErrRecord = errors.New("malformed node record")

// A record's bytes: version 2, flags of what follows, Type, Flags, Print (8, little-endian),
// To.Gen (4), then as uvarints To.Ino, Epoch, Size; Digest (32) if there is one;
// Parent.Gen (4), Parent.Ino (uvarint) and the name up to the end, if there is a parent.
//
// Version 1 is the same, but for digests of files over copier.DigestSame: they are of another
// definition. Such a file is read as one of which nothing is known, and is copied again.
const (
	recordVersion = 2
	recordOld     = 1
	hasDigest     = 1 << 0
	hasParent     = 1 << 1
	recordFixed   = 4 + 8 + 4
)

func appendRecord(b []byte, r *Record) []byte {
	var has byte
	if r.Digest != ([32]byte{}) {
		has |= hasDigest
	}
	if !r.Parent.IsZero() || r.Name != "" {
		has |= hasParent
	}
	b = append(b, recordVersion, has, r.Type, r.Flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Print))
	b = binary.LittleEndian.AppendUint32(b, r.To.Gen)
	b = binary.AppendUvarint(b, r.To.Ino)
	b = binary.AppendUvarint(b, r.Epoch)
	b = binary.AppendUvarint(b, uint64(r.Size))
	if has&hasDigest != 0 {
		b = append(b, r.Digest[:]...)
	}
	if has&hasParent != 0 {
		b = binary.LittleEndian.AppendUint32(b, r.Parent.Gen)
		b = binary.AppendUvarint(b, r.Parent.Ino)
		b = append(b, r.Name...)
	}
	return b
}

// decodeRecord fills r, whose old content is lost. It accepts only what
// appendRecord writes, and wrote.
func decodeRecord(b []byte, r *Record) error {
	*r = Record{}
	if len(b) < recordFixed || b[0] != recordVersion && b[0] != recordOld || b[1]&^(hasDigest|hasParent) != 0 {
		return ErrRecord
	}
	old, has := b[0] == recordOld, b[1]
	r.Type, r.Flags = b[2], b[3]
	r.Print = Print(binary.LittleEndian.Uint64(b[4:]))
	r.To.Gen = binary.LittleEndian.Uint32(b[12:])
	b = b[recordFixed:]
	var size uint64
	for _, p := range []*uint64{&r.To.Ino, &r.Epoch, &size} {
		if !cutUvarint(&b, p) {
			return ErrRecord
		}
	}
	r.Size = int64(size)
	if has&hasDigest != 0 {
		if len(b) < len(r.Digest) {
			return ErrRecord
		}
		b = b[copy(r.Digest[:], b):]
		if r.Digest == ([32]byte{}) {
			return ErrRecord
		}
	}
	if has&hasParent != 0 {
		if len(b) < 4 {
			return ErrRecord
		}
		r.Parent.Gen = binary.LittleEndian.Uint32(b)
		b = b[4:]
		if !cutUvarint(&b, &r.Parent.Ino) {
			return ErrRecord
		}
		r.Name, b = string(b), nil
		if r.Parent.IsZero() && r.Name == "" {
			return ErrRecord
		}
	}
	if len(b) != 0 {
		return ErrRecord
	}
	if old && r.Size > copier.DigestSame && r.Type == unix.S_IFREG>>12 {
		r.Digest, r.Print, r.Flags = [32]byte{}, 0, r.Flags&^Verified|NoDigest
	}
	return nil
}

// cutUvarint reads a shortest-form uvarint off the front of b.
func cutUvarint(b *[]byte, v *uint64) bool {
	x, n := binary.Uvarint(*b)
	if n <= 0 || (n > 1 && (*b)[n-1] == 0) {
		return false
	}
	*v, *b = x, (*b)[n:]
	return true
}

// nodeBytes is the size of an encoded Node.
const nodeBytes = 12

func appendNode(b []byte, n Node) []byte {
	b = binary.BigEndian.AppendUint64(b, n.Ino)
	return binary.BigEndian.AppendUint32(b, n.Gen)
}

func decodeNode(b []byte) (Node, bool) {
	if len(b) != nodeBytes {
		return Node{}, false
	}
	return Node{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])}, true
}

// nodeKey is a key of the store: name space, kind, Node. It fits a stack buffer.
func nodeKey(buf []byte, ns, kind byte, n Node) []byte {
	return appendNode(append(buf[:0], ns, kind), n)
}
