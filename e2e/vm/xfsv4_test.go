package vm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/pledge"
)

// An XFS of version 4, without checksums, which many kernels do not mount any more and this
// one does: it becomes one of version 5, and goes back, under the application.
func TestXfsWithoutCrc(t *testing.T) {
	g := newTiny(t, "ext4-128")
	g.on()
	g.Sh(2*time.Minute, `exec 2>&1; set -e
mkfs.xfs -q -f -m crc=0 /dev/vdb
echo "UUID=$(blkid -p -s UUID -o value /dev/vdb) /data xfs defaults 0 0" >/etc/fstab
mount -a
for n in $(seq 300); do mkdir -p /data/d$((n % 7)); head -c $((n * 97 % 9000)) /dev/urandom >/data/d$((n % 7))/$n; done
cd /data; find . -type f | sort | xargs sha256sum >/var/v4.sha256
echo --seed=3 --workers=3 --rate=15 >/run/pledge.args; /etc/app start`)
	if out := g.Sh(time.Minute, "fsmigrate survey || true"); !strings.Contains(out, "crc") {
		t.Errorf("survey says nothing of it:\n%s", out)
	}
	engine := g.Go("fsmigrate", "run", "/data", "--to", "xfs", "--spare", "/dev/vdc", "--id", id, "--yes", "--no-supervisor", "--policy", "asap",
		"--pause-budget", "2m", "--deadline", "4m", "--stop", "/etc/app stop", "--start", "/etc/app start", "--cutover", "auto")
	g.Sh(ends, "for n in $(seq 600); do fsmigrate wait "+id+" --for reverse --timeout 5m && exit 0; sleep 0.5; done; exit 1")
	same := func(device string) {
		t.Helper()
		if out := g.Sh(time.Minute, "findmnt -rn -o SOURCE -M /data"); strings.TrimSpace(out) != device {
			t.Errorf("%s in place, want %s", strings.TrimSpace(out), device)
		}
		g.Sh(time.Minute, "cd /data && sha256sum -c -s /var/v4.sha256")
	}
	same("/dev/vdc")
	g.Sh(ends, "for n in $(seq 100); do fsmigrate rollback "+id+"; case $? in 0|6) exit 0;; esac; sleep 0.5; done; exit 1")
	if code, err := engine.Wait(ends); err != nil || code != 6 {
		t.Errorf("the engine ended with %d, %v:\n%s", code, err, engine.Out())
	}
	same("/dev/vdb")
	g.Sh(time.Minute, "/etc/app stop")
	acked, err := pledge.ReadAcks(g.acksFile)
	if err != nil || len(acked) != 3 {
		t.Fatalf("acknowledged: %v, %v", acked, err)
	}
	g.Sh(time.Minute, fmt.Sprintf("pledge judge --dir /data --seed 3 --acked %d,%d,%d --foreign d0,d1,d2,d3,d4,d5,d6,.fsmigrate-t1", acked[0], acked[1], acked[2]))
	g.Sh(time.Minute, "umount /data && xfs_repair -n /dev/vdb && xfs_repair -n /dev/vdc")
	g.Kill()
}
