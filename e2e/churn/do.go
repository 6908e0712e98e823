package churn

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// handle is a descriptor or a mapping that a worker keeps open on an object.
type handle struct {
	fd  int // -1: closed, only the mapping is left
	mem []byte
}

func (h *handle) close() {
	if h.mem != nil {
		_ = unix.Munmap(h.mem)
	}
	if h.fd >= 0 {
		unix.Close(h.fd)
	}
}

// hold keeps h open on n. n's lock is held.
func (r *Runner) hold(n *Node, h *handle) {
	n.held = h
	r.mu.Lock()
	r.handles[n] = h
	r.mu.Unlock()
}

// release closes what is held on n. n's lock is held.
func (r *Runner) release(n *Node) {
	if n.held == nil {
		return
	}
	n.held.close()
	n.held = nil
	r.mu.Lock()
	delete(r.handles, n)
	r.mu.Unlock()
}

func (r *Runner) heldCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.handles)
}

// errVolume is wrapped by errors that mean the volume is not what was acknowledged.
var errVolume = errors.New("the volume disagrees with what it acknowledged")

// verdict sorts an error: a refusal that a sound volume may give (nil), or a fault.
func (r *Runner) verdict(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		if r.o.Tolerate {
			r.stale.Store(true)
			return nil
		}
		return err
	case errors.Is(err, unix.EIO), errors.Is(err, errFault):
		return nil
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		switch errno {
		case unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSPC, unix.EDQUOT, unix.EXDEV, unix.ENOTEMPTY,
			unix.EOPNOTSUPP, unix.ENOTTY, unix.E2BIG, unix.ERANGE, unix.EMLINK, unix.EFBIG, unix.EBUSY, unix.ENAMETOOLONG:
			return nil
		}
	}
	return fmt.Errorf("%w: %w", errVolume, err)
}

// action is one operation about to be done.
type action struct {
	op    *Op
	do    func() (done int64, err error)
	node  *Node                           // the object of an operation on content or attributes
	from  *Node                           // the object that content is copied from
	fd    int                             // node's O_PATH descriptor
	after func() (map[int64]Attrs, error) // reads back; by default the node's attributes
	happy func(map[int64]Attrs) error     // compares what was read back with what was asked for
}

// perform logs, does, reads back, applies and acknowledges an operation. The
// caller holds the locks.
func (r *Runner) perform(a action) error {
	if err := r.log.Begin(a.op); err != nil {
		return err
	}
	done, err := a.do()
	res := &Result{Done: done}
	if err != nil {
		res.Err = err.Error()
		if fault := r.verdict(err); fault != nil {
			return errors.Join(fmt.Errorf("operation %d, %s: %w", a.op.N, a.op.Kind, fault), r.log.End(a.op, res))
		}
		if errors.Is(err, unix.EIO) || errors.Is(err, errFault) {
			return r.unsure(a, res)
		}
		return r.log.End(a.op, res)
	}
	if a.after == nil {
		a.after = func() (map[int64]Attrs, error) {
			f, err := readFacts(a.fd)
			return map[int64]Attrs{a.node.ID: f.Attrs}, err
		}
	}
	if res.Attrs, err = a.after(); err != nil {
		if errors.Is(err, unix.EIO) {
			return r.unsure(a, res)
		}
		return fmt.Errorf("read back operation %d, %s: %w", a.op.N, a.op.Kind, err)
	}
	if a.happy != nil {
		if err := a.happy(res.Attrs); err != nil {
			return fmt.Errorf("operation %d, %s: %w: %w", a.op.N, a.op.Kind, errVolume, err)
		}
	}
	if a.node != nil {
		applyTo(a.node, a.from, a.op, res)
	} else if err := r.Model.Apply(a.op, res); err != nil {
		return err
	}
	return r.log.End(a.op, res)
}

// unsure records an operation that may have happened or not.
func (r *Runner) unsure(a action, res *Result) error {
	if a.node == nil {
		return fmt.Errorf("operation %d, %s: %s", a.op.N, a.op.Kind, res.Err) // left dangling: judged at the next start
	}
	res.Unsure = true
	applyTo(a.node, a.from, a.op, res)
	return r.log.End(a.op, res)
}
