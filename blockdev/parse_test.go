package blockdev

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMountinfo(t *testing.T) {
	text := `22 27 0:21 / /proc rw,relatime - proc proc rw
43 42 7:0 /sub /data\040of\012ours rw,nosuid shared:2 master:1 - ext4 /dev/loop0 ro,errors=remount-ro
`
	got, err := parseMountinfo(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := Mount{ID: 43, Parent: 42, Dev: unix.Mkdev(7, 0), Root: "/sub", Point: "/data of\nours", FSType: "ext4", Source: "/dev/loop0",
		Options: "rw,nosuid", SuperOptions: "ro,errors=remount-ro", Propagation: "shared:2 master:1"}
	if len(got) != 2 || got[1] != want {
		t.Errorf("got %+v", got)
	}
	if got[0].Propagation != "private" || !IsSuperReadOnly(got[1]) || got[1].ReadOnly() || IsSuperReadOnly(got[0]) {
		t.Errorf("flags of %+v", got)
	}
}

func TestParseMapping(t *testing.T) {
	tests := []struct {
		line string
		want mapping
		ok   bool
	}{
		{"7f1c00000000-7f1c00001000 rw-s 00000000 fe:10001 42    /data/a file (deleted)", mapping{0x7f1c00000000, 0x7f1c00001000, 0xfe, 0x10001, "/data/a file (deleted)"}, true},
		{"00400000-00401000 r-xp 00000000 08:02 17 /usr/bin/x", mapping{0x400000, 0x401000, 8, 2, "/usr/bin/x"}, true},
		{"7ffd0000-7ffd1000 rw-p 00000000 00:00 0      [stack]", mapping{}, false},
		{"7ffd0000-7ffd1000 rw-p 00000000 00:00 0", mapping{}, false},
		{"", mapping{}, false},
		{"zz-1 rw-p 0 0:1 5 /x", mapping{}, false},
	}
	for _, tt := range tests {
		got, ok := parseMapping([]byte(tt.line))
		if ok != tt.ok || (ok && got != tt.want) {
			t.Errorf("%q: %+v, %v", tt.line, got, ok)
		}
	}
}

func TestParseTables(t *testing.T) {
	swaps := parseSwaps("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda2 partition 8 0 -2\n/data/swap\\040file file 4 0 -3\n")
	if want := []swap{{"/dev/sda2", false}, {"/data/swap file", true}}; !reflect.DeepEqual(swaps, want) {
		t.Errorf("swaps %+v", swaps)
	}
	exports := parseExports("# Version 1.1\n/srv/a\t10.0.0.0/8(rw,sync)\n/srv/a\t*(ro)\n/srv/b\\040c\t*(rw)\n\n")
	if want := []string{"/srv/a", "/srv/b c"}; !reflect.DeepEqual(exports, want) {
		t.Errorf("exports %q", exports)
	}
	p, err := parsePressure("some avg10=1.53 avg60=1.20 avg300=0.90 total=123456\nfull avg10=0.75 avg60=0.60 avg300=0.40 total=99\n")
	if want := (Pressure{1.53, 0.75, 123456}); err != nil || p != want {
		t.Errorf("pressure %+v, %v", p, err)
	}
	if _, err := parsePressure("some avg10=x"); err == nil {
		t.Error("took a number that is none")
	}
	dev, err := parseWatchDev("pos:\t0\nflags:\t00\ninotify wd:1 ino:100 sdev:800013 mask:800 ignored_mask:0 fhandle-bytes:8\n")
	if err != nil || dev != unix.Mkdev(8, 0x13) {
		t.Errorf("watch's device %x, %v", dev, err)
	}
	for _, bad := range []string{"", "inotify wd:1", "inotify sdev:zz"} {
		if _, err := parseWatchDev(bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func TestParseSignatures(t *testing.T) {
	out := `{"signatures":[{"offset":"0x438","type":"ext4","usage":"filesystem","uuid":"u","label":null},{"offset":"0x1fe","type":"dos","usage":"partition-table","uuid":null,"label":null}]}`
	got, err := parseSignatures([]byte(out))
	want := []Signature{{Type: "ext4", Usage: "filesystem", UUID: "u", Offset: 0x438}, {Type: "dos", Usage: "partition-table", Offset: 0x1fe}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, blank := range []string{"", "\n", `{"signatures":[]}`} {
		if got, err := parseSignatures([]byte(blank)); err != nil || got != nil {
			t.Errorf("%q: %+v, %v", blank, got, err)
		}
	}
	for _, bad := range []string{"{", `{"signatures":[{"offset":"x","type":"a"}]}`, `{"signatures":[{"offset":"0x1"}]}`} {
		if _, err := parseSignatures([]byte(bad)); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func TestRemote(t *testing.T) {
	s := scan{remote: remotePoints([]Mount{{FSType: "nfs4", Point: "/net/home"}, {FSType: "fuse.sshfs", Point: "/ssh"}, {FSType: "ext4", Point: "/data"}, {FSType: "9p", Point: "/"}})}
	for path, want := range map[string]bool{"/net/home": true, "/net/home/a": true, "/net/homes": false, "/ssh/x": true, "/data/x": false, "socket:[1]": false} {
		if got := s.isRemote(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
