package copier

import (
	"fmt"
	"sync"
)

// linkGroups proves that names which are one object on one side are one object
// on the other: the pairs of inodes met form a bijection. Only objects with more
// than one link are kept, and only until all their names were met.
type linkGroups struct {
	mu    sync.Mutex
	byA   map[inode]*linkGroup
	byB   map[inode]*linkGroup
	names int64
}

type inode struct{ dev, ino uint64 }

type linkGroup struct {
	a, b inode
	left uint32 // names not met yet
}

func newLinkGroups() *linkGroups {
	return &linkGroups{byA: make(map[inode]*linkGroup), byB: make(map[inode]*linkGroup)}
}

// pair takes in one name that is x on the one side and y on the other. seen:
// the two were compared before, under another name.
func (l *linkGroups) pair(x, y *Attr) (seen bool, ds []Difference) {
	if x.Nlink < 2 && y.Nlink < 2 {
		return false, nil
	}
	a, b := inode{x.Dev, x.Ino}, inode{y.Dev, y.Ino}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names++
	ga, gb := l.byA[a], l.byB[b]
	switch {
	case ga == nil && gb == nil:
		g := &linkGroup{a: a, b: b, left: max(x.Nlink, y.Nlink) - 1}
		l.byA[a], l.byB[b] = g, g
		return false, nil
	case ga == gb:
		if ga.left--; ga.left == 0 {
			delete(l.byA, a)
			delete(l.byB, b)
		}
		return true, nil
	}
	return false, []Difference{{"hard links", partner("second side", ga, func(g *linkGroup) inode { return g.b }, b),
		partner("first side", gb, func(g *linkGroup) inode { return g.a }, a)}}
}

func partner(side string, g *linkGroup, of func(*linkGroup) inode, here inode) string {
	if g == nil {
		return "met for the first time"
	}
	return fmt.Sprintf("linked to what is inode %d on the %s, not %d", of(g).ino, side, here.ino)
}
