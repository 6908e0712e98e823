package copier

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The table of what each format stores is what its driver takes: every flag is
// tried on a file and on a directory.
func TestStoredFlags(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		for _, f := range flagLetters {
			if f.flag == FlagJournalData && !canJournalData(t) {
				continue
			}
			if f.flag == FlagProjInherit || f.flag == FlagEncrypt || f.flag == FlagVerity || f.flag == FlagDAX || f.flag == FlagCasefold {
				continue // kept apart, or a feature of the volume or its device
			}
			stored := false
			for _, kind := range []string{"file", "dir"} {
				path := filepath.Join(dir, kind+string(f.letter))
				if kind == "dir" {
					if err := os.Mkdir(path, 0o755); err != nil {
						t.Fatal(err)
					}
				} else {
					writeFile(t, path, nil)
				}
				fd := openRead(t, path)
				have, err := getFlags(fd)
				if err != nil {
					t.Fatal(err)
				}
				if setFlags(fd, have|f.flag) != nil {
					continue
				}
				now := attrOf(t, path).Flags
				stored = stored || now&f.flag != 0
				if err := setFlags(fd, have); err != nil {
					t.Fatal(err)
				}
			}
			if want := FlagsOf(format)&f.flag != 0; stored != want {
				t.Errorf("%s: flag %c stored: %v, the table says %v", format, f.letter, stored, want)
			}
		}
	}
}

// Every stored flag, alone, is dressed and taken off again; lsattr judges.
func TestDressEveryFlag(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		for _, f := range flagLetters {
			if FlagsOf(format)&f.flag == 0 || f.flag == FlagDAX || f.flag == FlagJournalData && !canJournalData(t) {
				continue
			}
			for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR} {
				if flagsFor(kind, f.flag) == 0 {
					continue
				}
				path := filepath.Join(dir, "o"+string(f.letter))
				if kind == unix.S_IFDIR {
					path += "dir"
					if err := os.Mkdir(path, 0o755); err != nil {
						t.Fatal(err)
					}
				} else {
					writeFile(t, path, nil)
				}
				want := Attr{Mode: kind | 0o644, Flags: f.flag, Mtime: Time{1, 2}, Atime: Time{3, 4}}
				if f.flag == FlagNoCow && kind == unix.S_IFREG {
					want.Flags |= FlagNoDump
				}
				dress(t, path, want, DressFor(format))
				if got := strings.Fields(shell(t, dir, "lsattr -d '"+path+"'"))[0]; !strings.ContainsRune(got, rune(f.letter)) {
					t.Errorf("%s: %s: lsattr says %s", format, path, got)
				}
				want.Flags = 0
				dress(t, path, want, DressFor(format))
				if got := attrOf(t, path); got.Flags != 0 {
					t.Errorf("%s: %s: left with %s", format, path, FlagString(got.Flags))
				}
			}
		}
	}
}

func dress(t testing.TB, path string, want Attr, o DressOptions) {
	t.Helper()
	if err := Dress(openPath(t, path), want, o); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// On btrfs FS_IOC_SETFLAGS resets the compression property to the default
// algorithm: the property has to win, also with other flags set after it.
func TestBtrfsCompressionProperty(t *testing.T) {
	dir := testVolume(t, "btrfs")
	shell(t, dir, `echo > src; chattr +dA src; btrfs property set src compression zstd; setfattr -n user.x -v y src; echo > dst; echo > other; chattr +c other`)
	want := attrOf(t, dir+"/src")
	for _, path := range []string{"/dst", "/other"} {
		for range 2 {
			dress(t, dir+path, want, DressFor("btrfs"))
			if got := shell(t, dir, "btrfs property get ."+path+" compression"); strings.TrimSpace(got) != "compression=zstd" {
				t.Errorf("%s has %q", path, got)
			}
		}
	}
	want.Flags, want.Xattrs = 0, nil
	dress(t, dir+"/dst", want, DressFor("btrfs"))
	if got := shell(t, dir, "btrfs property get dst compression"); strings.TrimSpace(got) != "" {
		t.Errorf("left with %q", got)
	}
}

// No-cow sticks only to an empty file, and copies of data must come after it.
func TestPrimeNoCow(t *testing.T) {
	dir := testVolume(t, "btrfs")
	writeFile(t, dir+"/f", nil)
	want := Attr{Mode: unix.S_IFREG | 0o600, Flags: FlagNoCow | FlagImmutable}
	o := DressFor("btrfs")
	if err := Prime(openPath(t, dir+"/f"), want, o); err != nil {
		t.Fatal(err)
	}
	if got := attrOf(t, dir+"/f").Flags; got != FlagNoCow {
		t.Errorf("primed with %s: only what needs an empty file", FlagString(got))
	}
	shell(t, dir, "echo data > f")
	dress(t, dir+"/f", want, o)
	if got := attrOf(t, dir+"/f").Flags; got != want.Flags {
		t.Errorf("dressed with %s", FlagString(got))
	}
	shell(t, dir, "chattr -i f")
}

// Projects and extent size hints between two xfs, specials and links included
// where the kernel can (6.17).
func TestXfsProjectsAndHints(t *testing.T) {
	src, dst := testVolume(t, "xfs"), testVolume(t, "xfs")
	shell(t, src, `mkdir d; chattr -p 70000 d; chattr +P d; echo > d/f; mkfifo d/p; ln -s x d/l; echo > q; chattr -p 12 q; xfs_io -f -c 'extsize 65536' e; mkdir h; xfs_io -c 'extsize 1m' h`)
	o := DressFor("xfs")
	o.XFlags = true
	carry(t, openDir(t, src), openDir(t, dst), o)
	ask := `lsattr -p . d 2>/dev/null | sort; lsattr -pd d h; xfs_io -r -c extsize e; xfs_io -r -c extsize h`
	if a, b := shell(t, src, ask), shell(t, dst, ask); a != b || !strings.Contains(a, "70000") || !strings.Contains(a, "65536") {
		t.Errorf("source:\n%s\ntarget:\n%s", a, b)
	}
	stats, err := CompareTrees(t.Context(), src, dst, CompareOptions{}, func(path string, d []Difference) { t.Errorf("%s: %v", path, d) })
	if err != nil || stats.Objects == 0 {
		t.Errorf("%+v: %v", stats, err)
	}
	if p := attrOf(t, src+"/d/p"); p.ProjID != 70000 {
		t.Logf("kernel does not tell the project of a FIFO")
	}
	if err := Undress(openPath(t, dst+"/d"), Attr{}); err != nil {
		t.Fatal(err)
	}
	shell(t, dst, "echo > d/new")
	if got := attrOf(t, dst+"/d/new"); got.ProjID != 0 {
		t.Errorf("a new entry of an undressed directory inherited project %d", got.ProjID)
	}
}

// canJournalData: ext4 lets only CAP_SYS_RESOURCE set the flag j, which not
// every root has.
func canJournalData(t testing.TB) bool {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[unix.CAP_SYS_RESOURCE/32].Effective&(1<<(unix.CAP_SYS_RESOURCE%32)) != 0
}
