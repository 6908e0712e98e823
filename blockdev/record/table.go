package record

import (
	"fmt"
	"io"
)

// table says for each sector of an image in which sector of the log its content is;
// 0, where the superblock is, means that it is zero.
type table []uint32

// maxLog is the largest log that a table can point into: 2 TiB.
const maxLog = 1 << 32

// set points n sectors from at on to the log's sector data and those behind it.
func (t table) set(at, n, data uint64) {
	for i := range n {
		t[at+i] = uint32(data + i)
	}
}

func (t table) zero(at, n uint64) { clear(t[at : at+n]) }

// readRuns fills b from the log with the sectors that places names, neighbours at once.
func readRuns(log io.ReaderAt, places []uint32, b []byte) error {
	for i := 0; i < len(places); {
		n := 1
		for i+n < len(places) && (places[i] == 0 && places[i+n] == 0 || places[i] != 0 && places[i+n] == places[i]+uint32(n)) {
			n++
		}
		part := b[i*Sector : (i+n)*Sector]
		if places[i] == 0 {
			clear(part)
		} else if err := readFull(log, part, int64(places[i])*Sector); err != nil {
			return fmt.Errorf("read write log at sector %d: %w", places[i], err)
		}
		i += n
	}
	return nil
}

// span checks an access and gives it in sectors.
func span(size, off int64, n int) (at, sectors uint64, err error) {
	if off < 0 || n < 0 || off%Sector != 0 || n%Sector != 0 || off > size || int64(n) > size-off {
		return 0, 0, fmt.Errorf("%d bytes at %d of %d: not whole sectors of the image", n, off, size)
	}
	return uint64(off / Sector), uint64(n / Sector), nil
}
