package vm_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	"github.com/fsmigrate/fsmigrate/e2e/vm"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// deviceOf is where a machine has the volumes.
var deviceOf = map[string]string{"source": "/dev/vdb", "shadow": "/dev/vdc"}

// imageOf are the names of their images.
var imageOf = map[string]string{"source": "source", "shadow": "spare"}

// boot mounts what fstab says, and judges it: nothing else has run yet. Of what a cut left the
// volume in place is also read by its own checker.
func (r *outage) boot(cut *vm.Cut) (truth string) {
	t := r.t
	t.Helper()
	code, out, err := r.Run(bootLimit, "sh", "-c", "ls /run/root && mount -a")
	if err != nil || code != 0 {
		if cut != nil && r.unmountable(*cut) {
			return "nothing"
		}
		t.Fatalf("the boot mounts nothing: exit %d, %v\n%s\nfstab:\n%s\n%s", code, err, out, r.Sh(time.Minute, "cat /etc/fstab"), r.console())
	}
	truth = r.judge()
	if cut != nil {
		r.boots++
		if truth == "shadow" {
			r.shadow++
		}
		r.fsck(*cut, truth)
	}
	return truth
}

// unmountable says whether a volume cannot be mounted by anybody, which is no failure of
// the program's. The test cannot go on with it.
func (r *outage) unmountable(cut vm.Cut) bool {
	device := "/dev/vda"
	if code, _, _ := r.Run(time.Minute, "ls", "/run/root"); code == 0 {
		device = deviceOf[r.recorded()]
	}
	code, out, err := r.Run(bootLimit, "sh", "-c", "mkdir -p /tmp/alone && mount "+device+" /tmp/alone && umount /tmp/alone")
	if err == nil && code == 0 {
		return false
	}
	r.unmounted++
	r.t.Logf("cut %v: not mountable: %v %s", cut, err, out)
	return true
}

// recorded is the truth that the newest switch record names, by one word of it.
func (r *outage) recorded() string {
	out := r.Sh(time.Minute, "cd /var/lib/fsmigrate/"+id+"/switch 2>/dev/null && head -qn 1 $(ls | grep 'json$' | tail -n 1) || true")
	if strings.TrimSpace(out) == "" {
		return "source"
	}
	var is struct {
		Truth string `json:"truth"`
	}
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &is); err != nil || deviceOf[is.Truth] == "" {
		r.t.Fatalf("switch record %q: %v", out, err)
	}
	return is.Truth
}

// status is what `fsmigrate status` tells an operator; nil where no migration was begun.
func (r *outage) status() map[string]any {
	r.t.Helper()
	code, out, err := r.Run(time.Minute, "sh", "-c", "[ -e /var/lib/fsmigrate/"+id+"/switch/0000.json ] || exit 99; fsmigrate status "+id+" --json")
	if code == 99 && err == nil {
		return nil
	}
	s := map[string]any{}
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		r.t.Fatalf("status: exit %d, %v\n%s", code, err, out)
	}
	return s
}

func (r *outage) phase() string {
	r.t.Helper()
	s := r.status()
	if s == nil {
		return "none"
	}
	return fmt.Sprint(s["phase"])
}

// judge requires one mount in place, of the side that the switch record names, that can be
// written to; nobody on the other side; a status that says so; and in it what was there
// in the beginning and what was acknowledged, and nothing else.
func (r *outage) judge() (truth string) {
	t := r.t
	t.Helper()
	truth = r.recorded()
	mounts := strings.Fields(r.Sh(time.Minute, "findmnt -rn -o SOURCE -M /data || true"))
	if len(mounts) != 1 || mounts[0] != deviceOf[truth] {
		t.Errorf("%v in place, but the switch record says the %s", mounts, truth)
	}
	for side, device := range deviceOf {
		if code, out, err := r.Run(time.Minute, "vmagent", "exclusive", device); err != nil || (code != 0) != (side == truth) {
			t.Errorf("the %s is the truth, and of the %s it is said: %d %v %s", truth, side, code, err, out)
		}
	}
	if s := r.status(); s != nil && s["truth"] != truth {
		t.Errorf("status says that the %v is the truth, it is the %s", s["truth"], truth)
	}
	r.Sh(time.Minute, "echo x >/data/probe && rm /data/probe")
	if code, out, err := r.Run(5*time.Minute, "sh", "-c", "cd /data/base && sha256sum -c -s /var/base.sha256 && find . -type f | wc -l"); err != nil || code != 0 || strings.TrimSpace(out) != fmt.Sprint(baseFiles) {
		t.Errorf("what was there in the beginning: exit %d, %v, %s files", code, err, out)
	}
	acked, _ := r.acknowledged()
	var list []string
	for _, n := range acked {
		list = append(list, strconv.Itoa(n))
	}
	code, out, err := r.Run(5*time.Minute, "pledge", "judge", "--dir", "/data", fmt.Sprintf("--seed=%d", r.seed),
		"--acked="+strings.Join(list, ","), "--foreign=lost+found,base,.fsmigrate-"+id)
	if err != nil || code != 0 {
		t.Errorf("what was acknowledged (%v): exit %d, %v\n%s", acked, code, err, out)
	}
	return truth
}

// acknowledged is what every worker that ever began was promised.
func (r *outage) acknowledged() (acked []int, sum int) {
	r.t.Helper()
	acked, err := pledge.ReadAcks(r.acksFile)
	if err != nil {
		r.t.Fatal(err)
	}
	for len(acked) < r.first+workers {
		acked = append(acked, 0)
	}
	for _, n := range acked {
		sum += n
	}
	return acked, sum
}

// fsck lets the checker of the file system read a volume as it was at a cut, after the
// kernel has replayed its journal.
func (r *outage) fsck(cut vm.Cut, side string) {
	t := r.t
	t.Helper()
	image := r.Path("dumped")
	if err := r.disks.Dump(cut, imageOf[side], image); err != nil {
		t.Fatal(err)
	}
	dev := r.Loop(image)
	kind := strings.TrimSpace(vol.Run(t, "blkid", "-p", "-s", "TYPE", "-o", "value", dev))
	r.Mount(dev, "replayed")
	r.Unmount(r.Path("replayed"))
	err := oracle.Fsck(kind, dev)
	vol.Run(t, "losetup", "-d", dev)
	if err != nil {
		t.Errorf("cut %v, the %s: %v", cut, side, err)
	}
}
