package fstab

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func copied(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/fstab")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fstab")
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// A migration's way through the file, compared byte for byte with what it should be.
func TestGoldens(t *testing.T) {
	for _, c := range []struct {
		name, dir, from, to string
	}{
		{"spaces", "/srv/my data", "ext4", "xfs"},
		{"columns", "/data", "ext4", "btrfs"},
		{"bare", "/bare", "xfs", "ext4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := copied(t)
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			ch, err := Enlist(path, c.dir, "mig-1", "x-systemd.requires-mounts-for=/var/lib/fsmigrate/mig-1")
			if err != nil || !ch.Done {
				t.Fatalf("enlist: %+v, %v", ch, err)
			}
			golden(t, path, c.name+".enlisted")
			if again, err := Enlist(path, c.dir, "mig-1"); err != nil || again.Done {
				t.Fatalf("enlist again: %+v, %v", again, err)
			}
			if _, err := Enlist(path, c.dir, "mig-2"); err == nil {
				t.Fatal("another migration took the entry")
			}
			old, ok := ParseLine(ch.Before)
			if !ok {
				t.Fatalf("%q is no entry", ch.Before)
			}
			native, dropped := Native(old, c.from, c.to, "11111111-2222-4333-8444-555555555555")
			t.Logf("dropped %q", dropped)
			if _, err := Finalize(path, c.dir, "mig-1", native); err != nil {
				t.Fatal(err)
			}
			golden(t, path, c.name+".finalized")
			if again, err := Finalize(path, c.dir, "mig-1", native); err != nil || again.Done {
				t.Fatalf("finalize again: %+v, %v", again, err)
			}
			if backup, err := os.ReadFile(BackupName(path, "mig-1")); err != nil || !bytes.Equal(backup, was) {
				t.Fatalf("the backup is not the file as it was: %v", err)
			}

			if _, err := Restore(path, c.dir, "mig-1", ch.Before); !errors.Is(err, ErrNotOurs) {
				t.Fatalf("restore over a finalized entry: %v", err)
			}
			if err := os.WriteFile(path, was, 0o640); err != nil {
				t.Fatal(err)
			}
			if _, err := Enlist(path, c.dir, "mig-1"); err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(path, c.dir, "mig-1", ch.Before); err != nil {
				t.Fatal(err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, was) {
				t.Fatalf("restored to %q", now)
			}
		})
	}
}

func golden(t *testing.T, path, name string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func TestFindRefuses(t *testing.T) {
	table := Parse([]byte("a /x ext4\nb /y/ ext4\nc /y xfs\n"))
	if _, _, err := table.Find("/z"); !errors.Is(err, ErrNoEntry) {
		t.Error(err)
	}
	if _, _, err := table.Find("/y"); !errors.Is(err, ErrManyEntries) {
		t.Error(err)
	}
	if i, e, err := table.Find("/x/"); err != nil || i != 0 || e.Spec != "a" || e.Options != "defaults" {
		t.Error(i, e, err)
	}
}

func TestMeans(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	link := filepath.Join(dir, "by-id")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(disk, link); err != nil {
		t.Fatal(err)
	}
	d := Device{Path: disk, UUID: "0A1B-2C3D", Label: "my data", PartUUID: "aa-01"}
	for spec, want := range map[string]bool{
		disk: true, link: true, "/dev/other": false,
		"UUID=0a1b-2c3d": true, `UUID="0a1b-2c3d"`: true, "UUID=": false, "uuid=0a1b-2c3d": false,
		"LABEL=my data": true, "LABEL=MY DATA": false, "PARTUUID=AA-01": true, "PARTLABEL=": false, "tmpfs": false,
	} {
		if got := (Entry{Spec: spec}).Means(d); got != want {
			t.Errorf("%q: %v", spec, got)
		}
	}
}

func TestTranslate(t *testing.T) {
	for _, c := range []struct{ options, from, to, kept, dropped string }{
		{"defaults", "ext4", "xfs", "defaults", ""},
		{"nosuid,nodev,noatime,nofail,x-systemd.automount", "ext4", "xfs", "nosuid,nodev,noatime,nofail,x-systemd.automount", ""},
		{"rw,errors=remount-ro,data=journal,discard", "ext4", "xfs", "rw,discard", "errors=remount-ro,data=journal"},
		{"rw,attr2,inode64,logbufs=8,logbsize=32k,noquota", "xfs", "ext4", "rw,noquota", "attr2,inode64,logbufs=8,logbsize=32k"},
		{"compress=zstd:3,subvolid=5,subvol=/,commit=30", "btrfs", "ext4", "commit=30", "compress=zstd:3,subvolid=5,subvol=/"},
		{`context="system_u:object_r:x:s0:c1,c2",noexec`, "ext4", "btrfs", `context="system_u:object_r:x:s0:c1,c2",noexec`, ""},
		{"seclabel,stripe=32,barrier=1", "ext3", "ext4", "barrier=1", "seclabel,stripe=32"},
		{"", "ext4", "xfs", "", ""},
	} {
		kept, dropped := Translate(c.options, c.from, c.to)
		if kept != c.kept || strings.Join(dropped, ",") != c.dropped {
			t.Errorf("%s from %s to %s: kept %q, dropped %q", c.options, c.from, c.to, kept, dropped)
		}
	}
}

func TestKeepsOwnerModeAndAttributes(t *testing.T) {
	path := copied(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Chown(path, 12, 34), os.Chmod(path, 0o604), os.Symlink(path, link),
		unix.Setxattr(path, "user.note", []byte("kept"), 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := Enlist(link, "/data", "mig"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Fatalf("the link became %v, %v", st.Mode(), err)
	}
	for _, p := range []string{path, BackupName(path, "mig")} {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			t.Fatal(err)
		}
		value := make([]byte, 16)
		n, err := unix.Getxattr(p, "user.note", value)
		if st.Uid != 12 || st.Gid != 34 || st.Mode&0o7777 != 0o604 || err != nil || string(value[:n]) != "kept" {
			t.Errorf("%s: owner %d:%d, mode %o, attribute %q, %v", p, st.Uid, st.Gid, st.Mode, value[:max(n, 0)], err)
		}
	}
}

// Fail, and die, at every operation: the file is the old one or the new one, and the next
// attempt gets through.
func TestEveryOperation(t *testing.T) {
	defer func() { step = func(string) error { return nil } }()
	broken := errors.New("broken")
	for _, dies := range []bool{false, true} {
		var seen []string
		for k, through := 0, false; !through; k++ {
			path := copied(t)
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			n, hit := k, ""
			step = func(name string) error {
				if hit != "" && dies {
					return broken
				}
				if n--; n == -1 {
					hit = name
					return broken
				}
				return nil
			}
			_, err = Enlist(path, "/data", "mig")
			if through = err == nil; !through && !errors.Is(err, broken) {
				t.Fatal(err)
			}
			seen = append(seen, hit)
			now, rerr := os.ReadFile(path)
			if rerr != nil {
				t.Fatal(rerr)
			}
			if !bytes.Equal(now, was) && !bytes.Contains(now, []byte("mig /data fsmigrate ")) || len(now) < len(was)/2 {
				t.Fatalf("failed at %s: the file is %q", hit, now)
			}
			step = func(string) error { return nil }
			if _, err := Enlist(path, "/data", "mig"); err != nil {
				t.Fatalf("failed at %s, then: %v", hit, err)
			}
			backup, err := os.ReadFile(BackupName(path, "mig"))
			if err != nil || !bytes.Equal(backup, was) {
				t.Fatalf("failed at %s: the backup is %q, %v", hit, backup, err)
			}
			left, err := filepath.Glob(path + "*.new")
			if err != nil || len(left) > 0 {
				t.Fatalf("failed at %s: %q is left, %v", hit, left, err)
			}
		}
		for _, op := range []string{"create", "write", "dress", "sync", "rename", "sync-directory"} {
			if !slices.Contains(seen, op) {
				t.Errorf("never failed at %s", op)
			}
		}
	}
}

// What an editor saved between our reading and our rename is not lost.
func TestChangedMeanwhile(t *testing.T) {
	defer func() { step = func(string) error { return nil } }()
	path := copied(t)
	edited := []byte("# edited\nLABEL=old /data ext4\n")
	step = func(name string) error {
		if name == "sync" {
			return os.WriteFile(path, edited, 0o640)
		}
		return nil
	}
	if _, err := Enlist(path, "/data", "mig"); !errors.Is(err, ErrChanged) {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, edited) {
		t.Fatalf("%q, %v", now, err)
	}
}
