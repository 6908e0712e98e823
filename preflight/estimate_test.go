package preflight

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// What a tree then takes is within 5 % of the estimate, plus the stated margin; the
// copy is another program's.
func TestEstimateHolds(t *testing.T) {
	dir, source := blocktest.NewVolume(t, "ext4", 1<<30, "-N", "200000")
	seed := make([]byte, 1<<20)
	for i := range seed {
		seed[i] = byte(i*7 + i>>8)
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for d := range 40 {
		sub := filepath.Join(dir, fmt.Sprint("d", d), strings.Repeat("n", d))
		must(os.MkdirAll(sub, 0o755))
		for i := range 150 {
			path := filepath.Join(sub, fmt.Sprintf("%0*d", 8+d*3, i))
			must(os.WriteFile(path, seed[:(i*i*37+d*977)%70000], 0o644))
			switch {
			case i%10 == 0:
				must(unix.Setxattr(path, "user.note", seed[:60+d*20], 0))
			case i%10 == 1:
				must(os.Link(path, path+".link"))
			case i%10 == 2:
				must(os.Symlink(strings.Repeat("t", 10+d*5), path+".sym"))
			}
		}
	}
	for i := range 20 {
		must(os.WriteFile(filepath.Join(dir, fmt.Sprint("big", i)), seed, 0o644))
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	must(f.Truncate(1 << 40))
	_, err = f.WriteAt(seed, 1<<39)
	must(err)
	must(f.Close())
	blocktest.Run(t, "sync", "-f", dir)

	for _, to := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(to, func(t *testing.T) {
			image := blocktest.MakeImage(t, 1<<30)
			spare := blocktest.Loop(t, image)
			p := &migrate.Plan{ID: "t1", Source: migrate.SourceSpec{Mount: dir, Format: "ext4"},
				Target: migrate.TargetSpec{Format: to, Spare: migrate.DeviceSpec{Path: spare}}}
			tg, err := look(p)
			must(err)
			tg.rates.begin(tg)
			l := &list{plan: p}
			must(checkSpace(t.Context(), l, tg, &Options{}))
			if v := l.verdict("space"); v != migrate.OK {
				t.Fatalf("%+v", l.checks)
			}
			if n := tg.census.stats.HardLinks; n != 600 {
				t.Errorf("%d hard links, want 600", n)
			}
			argv, err := tg.to.Mkfs(spare, formats.MakeOptions{Bytes: 1 << 30, Objects: tg.census.stats.Objects()})
			must(err)
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			filled := blocktest.MountTemp(t, spare, to)
			blocktest.Run(t, "sh", "-c", fmt.Sprintf("cp -a --sparse=always '%s'/. '%s'/ && sync -f '%s'", dir, filled, filled))
			var st unix.Statfs_t
			must(unix.Statfs(filled, &st))
			used := int64(st.Blocks-st.Bfree) * st.Bsize
			off := used - tg.estimate.UsedBytes
			t.Logf("estimated %s, used %s", bytes(tg.estimate.UsedBytes), bytes(used))
			if limit := used/20 + tg.estimate.MarginBytes; off > limit || -off > limit {
				t.Errorf("estimated %d, used %d", tg.estimate.UsedBytes, used)
			}

			// The same tree on a spare that is clearly too small is refused.
			blocktest.Run(t, "umount", filled)
			tg.spare.Bytes = tg.estimate.Bytes / 2
			l = &list{plan: p}
			if err := checkSpace(t.Context(), l, tg, &Options{}); err == nil && l.verdict("space") != migrate.Refused {
				t.Errorf("half of the space: %s", l.verdict("space"))
			}
			_ = source
		})
	}
}

// What survey proposes names the volume as it is mounted.
func TestSurvey(t *testing.T) {
	dir, dev := blocktest.NewVolume(t, "ext4", 64<<20, "-I", "128")
	inner := filepath.Join(dir, "a")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	found, err := Survey(t.Context(), []string{inner})
	if err != nil || len(found) != 1 || found[0].Mount != dir || found[0].Device != dev || found[0].Format != "ext4" {
		t.Fatalf("%+v, %v", found, err)
	}
	for _, f := range found[0].Findings {
		if strings.Contains(f.Do, "DIR") || f.What == "128-byte inodes" && !strings.Contains(f.Do, "fsmigrate plan "+dir+" --to") {
			t.Errorf("%+v", f)
		}
	}
	if all, err := Survey(t.Context(), nil); err != nil || len(all) == 0 {
		t.Errorf("every volume: %+v, %v", all, err)
	}
	if _, err := Survey(t.Context(), []string{"/nowhere"}); err == nil {
		t.Error("nowhere has a volume")
	}
}
