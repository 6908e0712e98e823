package shadow

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
)

// The witness of the swap says what the shadow's inodes looked like some time before it became
// the truth: their Prints, in the store. From the swap to the first scan of the way back
// nobody may be listening (a kill, a boot), and a clock that was set back meanwhile gives a change
// a ctime from before the swap. So that scan asks no clock: an inode whose print is the
// witness's is what it was when both sides were proven equal; any other is dirty. What we
// copied between the two is then compared once more than needed, which is all that a
// witness costs that was not taken under the fence, where it would be part of the pause.

const (
	witnessSpace = 'w'
	witnessKey   = "swap-witness"
	witnessEvery = 10 * time.Minute // between two, at least
	witnessShare = 50               // and at least this many times what one takes
)

// bearWitness records the prints of `to` as it is.
func (p *pair) bearWitness(ctx context.Context) error {
	began := time.Now()
	if err := p.syncTo(); err != nil { // what is in memory only is in no scan of btrfs
		return err
	}
	if err := p.store.SetMeta(witnessKey, nil, false); err != nil {
		return err
	}
	if err := p.store.Drop(witnessSpace); err != nil {
		return err
	}
	young := time.Now().Add(-2 * p.to.stamp)
	prints := NewPrints()
	_, err := p.to.format.ScanBatch(ctx, formats.ScanTarget{Device: p.to.device, MountFD: p.to.fd}, 0,
		func(batch []formats.InodeRecord) error {
			for i := range batch {
				r := &batch[i]
				// A later change could carry the very stamp of what was changed just now.
				if r.Nlink == 0 || !time.Unix(r.CtimeSec, int64(r.CtimeNsec)).Before(young) {
					continue
				}
				prints.Set(r.Ino, PrintOf(r.Gen, r.CtimeSec, r.CtimeNsec, r.Size, r.Mode, r.Nlink))
			}
			return ctx.Err()
		})
	if err != nil {
		return fmt.Errorf("scan inodes of %s: %w", p.to.device, err)
	}
	if err := p.store.putPrints(witnessSpace, prints); err != nil {
		return fmt.Errorf("write the swap's witness: %w", err)
	}
	if err := p.store.SetMeta(witnessKey, []byte("1"), false); err != nil {
		return err
	}
	now := time.Now()
	p.witnessed, p.witnessCost = now, now.Sub(began)
	return nil
}

// witnessDue reports whether the last witness is too old: of what was copied since, each
// object is compared once more on the way back.
func (p *pair) witnessDue() bool {
	return p.witnessed.IsZero() || time.Since(p.witnessed) > max(witnessEvery, witnessShare*p.witnessCost)
}

// witness is what bearWitness recorded last, also in an earlier process; empty, when that was
// not finished: then every object is compared.
func (s *Store) witness() (*Prints, error) {
	prints := NewPrints()
	whole, _, err := s.Meta(witnessKey)
	if err != nil || len(whole) == 0 {
		return prints, err
	}
	return prints, s.getPrints(witnessSpace, prints)
}

// putPrints writes prints to a name space, a key for each run of printChunk inodes.
func (s *Store) putPrints(ns byte, prints *Prints) error {
	const atOnce = 1000
	b := s.db.NewBatch()
	defer func() { s.release(b) }()
	var val [printChunk * 8]byte
	n := 0
	err := prints.chunks(func(chunk uint64, v *[printChunk]Print) error {
		for i, p := range v {
			binary.LittleEndian.PutUint64(val[i*8:], uint64(p))
		}
		if err := b.Set(binary.BigEndian.AppendUint64([]byte{ns}, chunk), val[:], nil); err != nil {
			return err
		}
		if n++; n%atOnce != 0 {
			return nil
		}
		err := s.apply(b, false)
		b.Reset()
		return err
	})
	if err == nil && !b.Empty() {
		err = s.apply(b, false)
	}
	return err
}

func (s *Store) getPrints(ns byte, prints *Prints) error {
	return s.scan([]byte{ns}, func(key, val []byte) error {
		if len(key) != 8 || len(val) != printChunk*8 {
			return fmt.Errorf("read prints: key of %d bytes, value of %d: %w", len(key), len(val), ErrRecord)
		}
		first := binary.BigEndian.Uint64(key) * printChunk
		for i := range uint64(printChunk) {
			prints.Set(first+i, Print(binary.LittleEndian.Uint64(val[i*8:])))
		}
		return nil
	})
}
