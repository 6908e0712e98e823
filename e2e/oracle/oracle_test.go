package oracle_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/plant"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// twins makes two equal volumes with a churned tree: the second is a copy of the
// first one's image.
func twins(t *testing.T, spec string) (a, b string) {
	t.Helper()
	lab := vol.New(t)
	image := lab.Image(512)
	device := lab.Loop(image)
	vol.Mkfs(t, spec, device)
	a = lab.Mount(device, "a")
	r, err := churn.Start(context.Background(), a, lab.Path("log"), churn.Options{Seed: 17, Objects: 400, Ops: 2500, Without: []string{"chattr", "project"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	plant.Objects(t, a)
	lab.Unmount(a)
	copied := lab.Path("copy")
	vol.Run(t, "cp", "--sparse=always", image, copied)
	if err := oracle.Fsck(spec, device); err != nil {
		t.Fatal(err)
	}
	lab.Mount(device, "a")
	options := []string{}
	if spec == "xfs" {
		options = []string{"nouuid"}
	}
	return a, lab.Mount(lab.Loop(copied), "b", options...)
}

// One error planted in each attribute is found by the facet that is for it, and
// none is found before.
func TestFindsEveryPlantedError(t *testing.T) {
	a, b := twins(t, "xfs")
	requireFacets(t, a, b)
	for _, c := range plant.Cases(a, b) {
		t.Run(c.Name, func(t *testing.T) {
			c.Do(t)
			requireFacets(t, a, b, c.Facet)
			c.Undo(t)
			requireFacets(t, a, b)
		})
	}
}

// requireFacets requires that a difference is shown by each facet, and that there
// is none when no facet is named.
func requireFacets(t *testing.T, a, b string, facets ...string) {
	t.Helper()
	found, err := oracle.Compare(a, b, oracle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(facets) == 0 && len(found) > 0 {
		t.Fatalf("equal trees differ:\n%s", strings.Join(found, "\n"))
	}
	for _, f := range facets {
		if !strings.Contains("\n"+strings.Join(found, "\n"), "\n"+f+": ") {
			t.Errorf("not found by %s, but: %q", f, found)
		}
	}
}

func TestFsckFindsDamage(t *testing.T) {
	for spec, offset := range map[string]int64{"ext4": 1024 + 0x0C, "xfs": 144, "btrfs": 64<<10 + 0x70} {
		t.Run(spec, func(t *testing.T) {
			lab := vol.New(t)
			image := lab.Image(512)
			device := lab.Loop(image)
			vol.Mkfs(t, spec, device)
			if err := oracle.Fsck(spec, device); err != nil {
				t.Fatal(err)
			}
			lab.Detach(device)
			f, err := os.OpenFile(image, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{0x5a, 0x5a, 0x5a}, offset); err != nil {
				t.Fatal(err)
			}
			if oracle.Fsck(spec, lab.Loop(image)) == nil {
				t.Error("damage was not found")
			}
		})
	}
}

func TestSnapshotSeesAChange(t *testing.T) {
	a, _ := twins(t, "ext4")
	before, err := oracle.Take(a, oracle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vol.Run(t, "chmod", "0700", filepath.Join(a, "plain"))
	after, err := oracle.Take(a, oracle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := before.Compare(after); len(d) == 0 {
		t.Error("a changed mode was not seen")
	}
	if d := after.Compare(after); len(d) != 0 {
		t.Errorf("nothing changed, but: %q", d)
	}
}
