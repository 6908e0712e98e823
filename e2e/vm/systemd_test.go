package vm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// A migration on a machine that systemd runs: a service by its unit, a boot by the
// generator's mount units, and a disk that goes away. The state directory is a volume of its own, which fstab names after the migrated one.
func TestSystemd(t *testing.T) {
	g := newSystemd(t)
	g.on()
	g.inPlace("/dev/vdc")

	// There in one go. Then the old disk is taken out of the running machine: systemd, which
	// was told at boot that the mount belongs to that disk, must not unmount the new one.
	out := g.run("t1", "xfs", "/dev/vdd", "--cutover", "auto", "--finalize")
	if !strings.Contains(out, "finalized, the shadow is the truth") {
		t.Fatalf("run:\n%s", out)
	}
	g.inPlace("/dev/vdd")
	g.unplug("vdc")
	g.inPlace("/dev/vdd")
	g.judge()
}

// newSystemd makes the machine's disks: vdc and vdd for the volumes, vde for the state.
func newSystemd(t *testing.T) *debian {
	t.Helper()
	lab := vol.New(t)
	source, spare, state := lab.Image(384), lab.Image(448), lab.Image(192)
	vol.Run(t, "mkfs.ext4", "-q", "-F", "-I", "128", source)
	vol.Run(t, "mkfs.ext4", "-q", "-F", "-m", "0", state)
	uuid := strings.TrimSpace(vol.Run(t, "blkid", "-p", "-s", "UUID", "-o", "value", source))
	g := newDebian(t, fmt.Sprintf("UUID=%s /data ext4 defaults 0 2\n/dev/disk/by-id/virtio-state /var/lib/fsmigrate ext4 defaults 0 2\n", uuid), nil)
	g.disk("one", source)
	g.disk("two", spare)
	g.disk("state", state)
	return g
}

// run begins a migration of /data, with the application as a unit.
func (g *debian) run(id, to, spare string, extra ...string) string {
	g.t.Helper()
	args := []string{"run", "/data", "--to", to, "--spare", spare, "--id", id, "--yes", "--unit", "app.service", "--policy", "asap", "--pause-budget", "2m", "--deadline", "4m"}
	return g.fsmigrate(append(args, extra...)...)
}

// unplug takes a disk out of the machine, and waits until systemd knows.
func (g *debian) unplug(disk string) {
	g.t.Helper()
	g.Sh(time.Minute, "echo 1 >$(readlink -f /sys/block/"+disk+"/device/..)/remove; udevadm settle; [ ! -e /dev/"+disk+" ]")
	g.soon("inactive", "systemctl is-active dev-"+disk+".device")
	g.Sh(time.Minute, "for n in $(seq 60); do [ -n \"$(systemctl list-jobs --no-legend)\" ] || break; sleep 0.5; done")
}

// soon requires the answer within a minute.
func (g *debian) soon(want, command string) {
	g.t.Helper()
	g.Run(2*time.Minute, "sh", "-c", fmt.Sprintf("for n in $(seq 120); do [ \"$(%s)\" != %q ] || break; sleep 0.5; done", command, want))
	g.is(want, command)
}

// inPlace requires that the device is mounted on /data, and that the application works there.
func (g *debian) inPlace(device string) {
	g.t.Helper()
	g.is(device, "findmnt -rn -o SOURCE -M /data")
	g.is("active", "systemctl is-active data.mount")
	g.is("active", "systemctl is-active app.service")
	acks := g.acks()
	g.soon("more", "n=$(cat /run/app.log | wc -l); sleep 1; [ $(cat /run/app.log | wc -l) -gt $n ] && echo more")
	if after := g.acks(); after <= acks {
		g.t.Fatalf("the application acknowledges nothing any more: %d, then %d operations", acks, after)
	}
}

func (g *debian) acks() (sum int) {
	acked, err := pledge.ReadAcks(g.acksFile)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, n := range acked {
		sum += n
	}
	return sum
}

// judge stops the application and requires everything that it was promised in any boot.
func (g *debian) judge() {
	g.t.Helper()
	g.Must(time.Minute, "systemctl", "stop", "app.service")
	acked, err := pledge.ReadAcks(g.acksFile)
	if err != nil {
		g.t.Fatal(err)
	}
	var boots int
	if _, err := fmt.Sscan(g.Sh(time.Minute, "cat /var/lib/app.boots"), &boots); err != nil {
		g.t.Fatal(err)
	}
	for len(acked) < boots*3 {
		acked = append(acked, 0)
	}
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(acked), " ", ","), "[]")
	out := g.Sh(migrationLimit, "pledge judge --dir /data --seed 7 --foreign lost+found,.fsmigrate-t1,.fsmigrate-t2 --acked "+list)
	g.t.Logf("acknowledged in %d boots and found again: %v%s", boots, acked, out)
	g.Must(time.Minute, "systemctl", "start", "app.service")
}
