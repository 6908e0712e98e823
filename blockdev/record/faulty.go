package record

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

// Fault is what a Faulty disk does wrong. Operations are counted from the moment it is
// armed; a discard counts as a write.
type Fault struct {
	Op     blockdev.Op // which are counted; "": all
	K      int         // which of them fails, from 0
	Err    unix.Errno  // with what; 0: it is done in the end
	Sticky bool        // all that follow fail too
	Hold   bool        // it waits until the fault is mended
}

// Faulty is a disk that fails as it is told. What fails is not done.
type Faulty struct {
	Disk

	mu    sync.Mutex
	fault Fault
	armed bool
	seen  int           // counted operations
	fired int           // of them failed or held
	mend  chan struct{} // closed when the fault is mended
}

// Arm has the disk fail from now on; what an older fault holds goes on.
func (f *Faulty) Arm(fault Fault) {
	f.Mend()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.armed, f.seen, f.fired, f.mend = fault, true, 0, 0, make(chan struct{})
}

// Mend makes it a sound disk again. The counts stay.
func (f *Faulty) Mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.armed {
		f.armed = false
		close(f.mend)
	}
}

// Counts are the operations that were counted since Arm, and how many of them failed or
// were held.
func (f *Faulty) Counts() (seen, fired int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen, f.fired
}

func (f *Faulty) next(op blockdev.Op) error {
	f.mu.Lock()
	if !f.armed || f.fault.Op != "" && f.fault.Op != op {
		f.mu.Unlock()
		return nil
	}
	k, fault, mend := f.seen, f.fault, f.mend
	fails := k == fault.K || fault.Sticky && k > fault.K
	f.seen++
	if fails {
		f.fired++
	}
	f.mu.Unlock()
	if fails && fault.Hold {
		<-mend
	}
	if fails && fault.Err != 0 {
		return fault.Err
	}
	return nil
}

// ReadAt reads, or fails.
func (f *Faulty) ReadAt(p []byte, off int64) (int, error) {
	if err := f.next(blockdev.OpRead); err != nil {
		return 0, err
	}
	return f.Disk.ReadAt(p, off)
}

// WriteAt writes, or fails and writes nothing.
func (f *Faulty) WriteAt(p []byte, off int64) (int, error) {
	if err := f.next(blockdev.OpWrite); err != nil {
		return 0, err
	}
	return f.Disk.WriteAt(p, off)
}

// Discard discards, or fails.
func (f *Faulty) Discard(off, n int64) error {
	if err := f.next(blockdev.OpWrite); err != nil {
		return err
	}
	return f.Disk.Discard(off, n)
}

// Sync syncs, or fails.
func (f *Faulty) Sync() error {
	if err := f.next(blockdev.OpSync); err != nil {
		return err
	}
	return f.Disk.Sync()
}

// Faults are disks by name that are told what to do through the file of marks.
type Faults map[string]*Faulty

// errnos are the errors that can be asked for.
var errnos = map[string]unix.Errno{"EIO": unix.EIO, "ENOSPC": unix.ENOSPC, "EROFS": unix.EROFS}

// Mark takes "NAME OP K WHAT [sticky]" and "NAME mend". OP is read, write, sync or any;
// WHAT is an error's name, or hold.
func (d Faults) Mark(text string) error {
	w := strings.Fields(text)
	if len(w) < 2 || d[w[0]] == nil {
		return fmt.Errorf("fault %q: want a disk and what it is to do", text)
	}
	if w[1] == "mend" && len(w) == 2 {
		d[w[0]].Mend()
		return nil
	}
	if len(w) < 4 || len(w) > 5 || len(w) == 5 && w[4] != "sticky" {
		return fmt.Errorf("fault %q: want DISK OP K WHAT [sticky]", text)
	}
	k, err := strconv.Atoi(w[2])
	errno, known := errnos[w[3]]
	ops := map[string]blockdev.Op{"read": blockdev.OpRead, "write": blockdev.OpWrite, "sync": blockdev.OpSync, "any": ""}
	op, countable := ops[w[1]]
	if err != nil || k < 0 || !countable || !known && w[3] != "hold" {
		return fmt.Errorf("fault %q: no such operation, number or error", text)
	}
	d[w[0]].Arm(Fault{Op: op, K: k, Err: errno, Hold: w[3] == "hold", Sticky: len(w) == 5})
	return nil
}

// Tell is a line "NAME SEEN FIRED" for each disk.
func (d Faults) Tell() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d)) {
		seen, fired := d[name].Counts()
		fmt.Fprintln(&b, name, seen, fired)
	}
	return b.String()
}
