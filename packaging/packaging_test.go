package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
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
	install(t, root)
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

func install(t *testing.T, root string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "fsmigrate")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("./install", binary, root).CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
}

func TestInstall(t *testing.T) {
	root := t.TempDir()
	for range 2 { // over an older one
		install(t, root)
	}
	if link, err := os.Readlink(filepath.Join(root, "usr/sbin/mount.fsmigrate")); err != nil || link != "fsmigrate" {
		t.Errorf("mount.fsmigrate: %q, %v", link, err)
	}
	info, err := os.Stat(filepath.Join(root, "var/lib/fsmigrate"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v", info, err)
	}
	for _, name := range []string{"systemd/system/fsmigrate@.service", "tmpfiles.d/fsmigrate.conf", "sysusers.d/fsmigrate.conf"} {
		if _, err := os.Stat(filepath.Join(root, "usr/lib", name)); err != nil {
			t.Error(err)
		}
	}
}
