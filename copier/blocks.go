package copier

import (
	"encoding/binary"

	"github.com/zeebo/blake3"
)

// DigestVersion is the definition of a content's digest. A digest of another version says
// nothing about this one's: compare none of them.
//
//	1: blake3 of the content.
//	2: of up to 1 MiB the same. Of more, blake3 of 40 bytes for each block of 1 MiB that is not
//	   all zeros (its number, 8 bytes little-endian, and its blake3), in order, and at the end of
//	   8 bytes 0xff and the size in bytes, 8 bytes little-endian. The last block is as long as it is.
//
// So a hole is the same as zeros, and costs nothing however large it is.
const DigestVersion = 2

// DigestSame is the size up to which version 1 and 2 are the same.
const DigestSame = blockBytes

const blockBytes = dataBytes

// digester digests a content that comes piece by piece. The zero value is not ready: see reset.
type digester struct {
	block, whole *blake3.Hasher
	index        uint64   // of the block under way
	n            int      // bytes of it so far
	zeros        bool     // all of them are, and none was hashed yet
	first        [32]byte // of block 0, when it is not all zeros
	some         bool     // block 0 is not
}

func (d *digester) reset() {
	if d.block == nil {
		d.block, d.whole = blake3.New(), blake3.New()
	}
	d.block.Reset()
	d.whole.Reset()
	d.index, d.n, d.zeros, d.some = 0, 0, true, false
}

func (d *digester) add(p []byte) {
	for len(p) > 0 {
		part := p[:min(len(p), blockBytes-d.n)]
		p = p[len(part):]
		if !d.zeros || !allZero(part) {
			if d.zeros {
				_, _ = d.block.Write(zeros[:d.n])
				d.zeros = false
			}
			_, _ = d.block.Write(part)
		}
		if d.n += len(part); d.n == blockBytes {
			d.close()
		}
	}
}

// hole adds n zeros.
func (d *digester) hole(n int64) {
	for n > 0 {
		if d.n == 0 && n >= blockBytes {
			d.index += uint64(n / blockBytes)
			n %= blockBytes
			continue
		}
		part := min(n, int64(blockBytes-d.n))
		d.add(zeros[:part])
		n -= part
	}
}

// close ends a block.
func (d *digester) close() {
	if !d.zeros {
		var entry [40]byte
		binary.LittleEndian.PutUint64(entry[:], d.index)
		d.block.Sum(entry[:8])
		d.block.Reset()
		_, _ = d.whole.Write(entry[:])
		if d.index == 0 {
			d.first, d.some = [32]byte(entry[8:]), true
		}
	}
	d.index, d.n, d.zeros = d.index+1, 0, true
}

// sum is the digest of all that was added.
func (d *digester) sum() (out [32]byte) {
	size := d.index*blockBytes + uint64(d.n)
	if d.n > 0 {
		d.close()
	}
	switch {
	case size <= blockBytes && d.some:
		return d.first
	case size <= blockBytes:
		return blake3.Sum256(zeros[:size])
	}
	end := [16]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	binary.LittleEndian.PutUint64(end[8:], size)
	_, _ = d.whole.Write(end[:])
	d.whole.Sum(out[:0])
	return out
}
