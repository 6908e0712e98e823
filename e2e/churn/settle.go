package churn

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// settle decides, by looking at the volume, what became of operations that began
// and were never answered: the churn was killed in the middle of them. Every one
// has to have happened or not; a write may have happened in part.
func settle(m *Model, v *volume, dangling []*Op) (map[*Op]*Result, error) {
	out := map[*Op]*Result{}
	for _, op := range dangling {
		res := &Result{}
		switch {
		case op.Kind == Open || op.Kind == Quiesce:
			res.Err = "interrupted"
		case op.Kind.content() || op.Kind.attribute():
			res.Err, res.Unsure = "interrupted", true
		default:
			happened, err := happened(m, v, op)
			if err != nil {
				return nil, fmt.Errorf("operation %d, %s, begun and unanswered: %w", op.N, op.Kind, err)
			}
			if !happened {
				res.Err = "interrupted"
			}
		}
		if err := m.Apply(op, res); err != nil {
			return nil, err
		}
		if res.Err == "" {
			if err := adopt(m, v, op, res); err != nil {
				return nil, err
			}
		}
		out[op] = res
	}
	return out, nil
}

// happened looks whether a namespace operation took place.
func happened(m *Model, v *volume, op *Op) (bool, error) {
	dir := m.nodes[op.Dir]
	if dir == nil {
		return false, fmt.Errorf("no directory %d", op.Dir)
	}
	fd, err := v.dir(dir)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	obj, err := unix.Openat(fd, string(op.Name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	there := err == nil
	if there {
		defer unix.Close(obj)
	} else if !errors.Is(err, unix.ENOENT) {
		return false, err
	}
	switch op.Kind {
	case Unlink, Rmdir, Rename:
		return !there, nil
	case Exchange:
		if !there {
			return false, fmt.Errorf("%q is gone", op.Name)
		}
		f, err := readFacts(obj)
		return err == nil && !f.Equal(dir.Entries[string(op.Name)].Attrs), err
	}
	return there, nil
}

// adopt reads the attributes of the directories and of the object that an
// unanswered operation touched.
func adopt(m *Model, v *volume, op *Op, res *Result) error {
	res.Attrs = map[int64]Attrs{}
	for _, id := range []int64{op.Dir, op.ToDir, op.Node} {
		n := m.nodes[id]
		if n == nil || (op.Kind == Link && id == op.Node) {
			continue
		}
		fd, err := v.node(n, 0)
		if err != nil {
			return err
		}
		f, err := readFacts(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
		res.Attrs[id], n.Attrs = f.Attrs, f.Attrs
	}
	if n := m.nodes[op.Node]; n != nil && n.Type == unix.S_IFREG && op.Kind == Create && op.Len > 0 {
		// Created, and perhaps not filled: its content is a pending write.
		n.Content = Content{}
		n.Pending = append(n.Pending, Pending{Op: &Op{Kind: Write, Len: op.Len, Seed: op.Seed}})
	}
	return nil
}

// settle logs what became of the dangling operations, so that a later replay
// decides the same.
func (r *Runner) settle(dangling []*Op) error {
	if len(dangling) == 0 {
		return nil
	}
	v, err := openVolume(r.dir)
	if err != nil {
		return err
	}
	defer v.close()
	results, err := settle(r.Model, v, dangling)
	if err != nil {
		return err
	}
	for _, op := range dangling {
		res := results[op]
		if op.Kind == Create && res.Err == "" && op.Len > 0 {
			// In the log: an empty file, and a write to it that nobody answered.
			empty := *op
			empty.Len = 0
			fill := &Op{Kind: Write, Node: op.Node, Len: op.Len, Seed: op.Seed}
			if err := errors.Join(r.log.End(op, &Result{Err: "interrupted"}), r.log.Begin(&empty), r.log.End(&empty, res),
				r.log.Begin(fill), r.log.End(fill, &Result{Err: "interrupted", Unsure: true})); err != nil {
				return err
			}
			continue
		}
		if err := r.log.End(op, res); err != nil {
			return err
		}
	}
	return nil
}
