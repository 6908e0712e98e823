package disrupt

import (
	"context"
	"fmt"
	"slices"

	trees "github.com/fsmigrate/fsmigrate/bench"
)

// Scenario is a volume, and what it becomes.
type Scenario struct {
	Name     string
	From, To string // FORMAT[:property=value]
	Says     string

	files int
	bytes int64 // in large files
}

// Scenarios are those that can be asked for.
var Scenarios = []Scenario{
	{Name: "small", From: "ext4:inode_size=128", To: "xfs", Says: "many small files (4 KiB mean); ext4 with 128-byte inodes becomes XFS"},
	{Name: "large", From: "ext4:inode_size=128", To: "xfs", Says: "four large files; ext4 with 128-byte inodes becomes XFS"},
	{Name: "btrfs", From: "ext4", To: "btrfs", Says: "many small files (4 KiB mean); ext4 becomes btrfs, which btrfs-convert can do in place"},
}

// scenarios are those asked for, with their sizes.
func (o Options) scenarios() []Scenario {
	var list []Scenario
	for _, s := range Scenarios {
		if len(o.Scenarios) > 0 && !slices.Contains(o.Scenarios, s.Name) {
			continue
		}
		if s.Name == "large" {
			s.files, s.bytes = 4, o.Large
		} else {
			s.files = o.Files
		}
		list = append(list, s)
	}
	return list
}

// smallScenario is that of a scale.
func smallScenario(files int) Scenario {
	s := Scenarios[0]
	s.files = files
	return s
}

// What the workloads themselves may take, logs and journals included.
const appRoom = 1 << 30

// volume is the size of each volume, in bytes: twice what is on it.
func (s Scenario) volume() int64 { return 2*s.content() + appRoom + 512<<20 }

// content is what the tree takes on the disk, with the blocks' slack and the inodes.
func (s Scenario) content() int64 { return s.bytes + int64(s.files)*(7<<10) }

// room is what both images may take, and the state.
func (s Scenario) room() int64 { return 2*(s.content()+appRoom) + int64(s.files)*1024 + 256<<20 }

// inodes of the source: its own, a quarter more, and the workload's.
func (s Scenario) inodes() int64 { return int64(s.files)*5/4 + 50_000 }

// fill makes the tree and answers its bytes.
func (s Scenario) fill(ctx context.Context, dir string) (int64, error) {
	if s.bytes > 0 {
		return trees.LargeFiles(ctx, dir, s.bytes)
	}
	n, err := trees.SmallFiles(ctx, dir, s.files)
	if err != nil {
		return 0, fmt.Errorf("make %d files: %w", s.files, err)
	}
	return n, nil
}
