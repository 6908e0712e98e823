package packaging

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The unit must not restart what ended as it was asked to, nor kill what outlives the engine.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("fsmigrate@.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Type=notify", "Restart=on-failure", "KillMode=process", "SuccessExitStatus=5 6 7",
		"RestartPreventExitStatus=2 3 4 5 6 7 8", "ExecStart=/usr/sbin/fsmigrate resume %i", "WantedBy=multi-user.target",
	} {
		if !strings.Contains(string(unit), "\n"+want+"\n") {
			t.Errorf("the unit lacks %s", want)
		}
	}
	for _, never := range []string{"PrivateMounts", "ProtectSystem", "MountFlags", "PrivateTmp", "UMask"} {
		if strings.Contains(string(unit), never) {
			t.Errorf("the unit has %s: its mounts would be its own, or its hooks would inherit it", never)
		}
	}
}

// systemd itself reads the unit without a complaint.
func TestUnitIsUnderstood(t *testing.T) {
	root := t.TempDir()
	install(t, root, "/usr")
	unit := filepath.Join(root, "usr/lib/systemd/system/fsmigrate@data.service")
	if err := os.Symlink("fsmigrate@.service", unit); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("fsmigrate@.service")
	if err != nil {
		t.Fatal(err)
	}
	// It looks for the program where the unit says.
	text = []byte(strings.ReplaceAll(string(text), "/usr/sbin/fsmigrate", filepath.Join(root, "usr/sbin/fsmigrate")))
	if err := os.WriteFile(filepath.Join(root, "usr/lib/systemd/system/fsmigrate@.service"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit).CombinedOutput()
	if err != nil || strings.Contains(string(out), "fsmigrate@") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// install runs the installer into root; prefix "" is its own default.
func install(t *testing.T, root, prefix string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "fsmigrate")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := script(root, prefix, "./install", binary, root); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
}

func script(root, prefix, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PREFIX=" + prefix}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// files lists what is below root, with what links lead to.
func files(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		if to, err := os.Readlink(path); err == nil {
			name += " -> " + to
		}
		out = append(out, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The command, the helper and the unit agree on where the command is, whatever the prefix
// and whether or not /sbin is /usr/sbin; and nothing is left when they are taken away.
func TestInstall(t *testing.T) {
	for _, tc := range []struct{ prefix, command string }{{"", "/usr/sbin/fsmigrate"}, {"/usr/local", "/usr/local/sbin/fsmigrate"}} {
		for _, merged := range []bool{true, false} {
			root := t.TempDir()
			helper := "sbin/mount.fsmigrate"
			if merged {
				if err := os.Symlink("usr/sbin", filepath.Join(root, "sbin")); err != nil {
					t.Fatal(err)
				}
				helper = "usr/sbin/mount.fsmigrate"
			} else if err := os.Mkdir(filepath.Join(root, "sbin"), 0o755); err != nil {
				t.Fatal(err)
			}
			before := files(t, root)
			for range 2 { // over an older one
				install(t, root, tc.prefix)
			}
			want := append(slices.Clone(before), strings.TrimPrefix(tc.command, "/"), helper+" -> "+tc.command, "usr/lib/systemd/system/fsmigrate@.service",
				"usr/lib/sysusers.d/fsmigrate.conf", "usr/lib/tmpfiles.d/fsmigrate.conf")
			slices.Sort(want)
			if got := files(t, root); !slices.Equal(got, want) {
				t.Errorf("prefix %q, merged %v: installed %q, want %q", tc.prefix, merged, got, want)
			}
			info, err := os.Stat(filepath.Join(root, "var/lib/fsmigrate"))
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("state directory: %v, %v", info, err)
			}
			unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/fsmigrate@.service"))
			if err != nil || !strings.Contains(string(unit), "\nExecStart="+tc.command+" resume %i\n") {
				t.Errorf("prefix %q: the unit does not start %s: %v", tc.prefix, tc.command, err)
			}
			if out, err := script(root, tc.prefix, "./uninstall", root); err != nil {
				t.Fatalf("uninstall: %v\n%s", err, out)
			}
			if got := files(t, root); !slices.Equal(got, before) {
				t.Errorf("prefix %q, merged %v: %q is left", tc.prefix, merged, got)
			}
		}
	}
}

// What a boot or a migration still needs is not taken away.
func TestUninstallIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"etc/fstab":                      "UUID=1 / ext4 defaults 0 1\ndata /data fsmigrate defaults,nofail 0 2\n",
		"var/lib/fsmigrate/m/state.json": "{\n  \"version\": 1,\n  \"phase\": \"hold\",\n  \"timeline\": [\n    {\n      \"phase\": \"aborted\"\n    }\n  ]\n}\n",
	} {
		root := t.TempDir()
		install(t, root, "")
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		before := files(t, root)
		if out, err := script(root, "", "./uninstall", root); err == nil || !strings.Contains(out, "hint:") || !slices.Equal(files(t, root), before) {
			t.Errorf("%s: uninstall: %v\n%s", name, err, out)
		}
		ended := strings.NewReplacer("data /data fsmigrate", "UUID=2 /data xfs", `"hold"`, `"finalized"`).Replace(text)
		if err := os.WriteFile(path, []byte(ended), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := script(root, "", "./uninstall", root); err != nil || len(files(t, root)) != 1 {
			t.Errorf("%s, ended: uninstall: %v\n%s%q", name, err, out, files(t, root))
		}
	}
}

// make install and make uninstall are these two scripts, and nothing beside them.
func TestMakeInstallsByTheScripts(t *testing.T) {
	for target, want := range map[string]string{
		"install":   `PREFIX="/opt" packaging/install bin/fsmigrate "/image"`,
		"uninstall": `PREFIX="/opt" packaging/uninstall "/image"`,
	} {
		out, err := exec.Command("make", "-C", "..", "-n", "-s", target, "PREFIX=/opt", "DESTDIR=/image", "GO=true").CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if lines[len(lines)-1] != want {
			t.Errorf("make %s runs %q", target, lines)
		}
	}
}
