package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// byHand is the heading of the runbook's section that needs no fsmigrate.
const byHand = "## Without the fsmigrate binary: recover by hand with mount(8)"

// runbookBlocks are the shell blocks of that section, with this rig's names in the
// place of the examples. Nothing else of them is touched.
func (r *rig) runbookBlocks() []string {
	r.t.Helper()
	text, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		r.t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), byHand)
	if !found {
		r.t.Fatalf("the runbook has no section %q", byHand)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) != 6 {
		r.t.Fatalf("the runbook has %d shell blocks for a recovery by hand, this test knows 6", len(blocks))
	}
	for _, v := range [][2]string{{"ID=data\n", "ID=" + id}, {"STATE=/var/lib/fsmigrate\n", "STATE=" + r.state}, {"FSTAB=/etc/fstab\n", "FSTAB=" + r.fstab}} {
		if strings.Count(blocks[0], v[0]) != 1 {
			r.t.Fatalf("the first block does not say %q:\n%s", v[0], blocks[0])
		}
		blocks[0] = strings.Replace(blocks[0], v[0], v[1]+"\n", 1)
	}
	return blocks
}

// recoverByHand does what the runbook says, in one shell that knows no fsmigrate, and
// answers what it printed.
func (r *rig) recoverByHand(blocks []string) string {
	r.t.Helper()
	cmd := exec.Command("bash", "-c", strings.Join(blocks, "\n"))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("by hand: %v\n%s", err, out)
	}
	return string(out)
}

// The runbook's last page is done as it stands after a kill -9 in Hold and after a
// cutover, with the machine up and after it went down: what is mounted natively, now and
// by the next boot, is the one truth, with everything that was acknowledged.
func TestRunbookByHand(t *testing.T) {
	cases := []struct {
		name    string
		cutover bool
		off     bool // the machine goes down as well
		file    bool // the spare is an image in a file
	}{
		{name: "killed in hold"},
		{name: "power cut in hold", off: true},
		{name: "killed after the cutover", cutover: true},
		{name: "power cut after the cutover", cutover: true, off: true},
		{name: "power cut after the cutover onto a file", cutover: true, off: true, file: true},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := pairs[i%len(pairs)]
			r := newRig(t, p, 400)
			args := r.runArgs()
			if c.file {
				r.Detach(r.spare)
				args = r.runArgs("--spare", "file:"+r.Path("spare.img")+",size=500M", "--waive", "file-spare=the test knows")
				t.Cleanup(func() { _ = exec.Command("losetup", "-d", r.spare).Run() })
			}
			r.populate(seeded(t).Uint64(), 200, 400)
			r.background(nil, args...)
			r.waitPhase(toHold, "hold")
			want := fstypeOf(p.spec)
			if c.cutover {
				r.must([]string{"cutover", id})
				r.waitPhase(toEnd, "reverse")
				want = fstypeOf(p.to)
			}
			r.moreChurn(100)
			if c.file {
				r.spare = strings.TrimSpace(vol.Run(t, "losetup", "-n", "-O", "NAME", "-j", r.Path("spare.img")))
			}
			if c.off {
				r.powerOff()
				if c.file {
					r.Detach(r.spare)
				}
			} else {
				r.engine.kill()
				r.hook("stop")
			}
			if !vol.Eventually(10*time.Second, func() bool { return len(r.processes()) == 0 }) {
				t.Fatalf("still running: %v", r.processes())
			}

			out := r.recoverByHand(r.runbookBlocks())
			if n := len(vol.Mounts(r.dir)); n != 1 || r.fsType() != want {
				t.Fatalf("%d mounts, %s in place, want one of %s\n%s", n, r.fsType(), want, out)
			}
			r.judge("by hand", r.dir, 0)
			if c.file {
				r.spare = strings.TrimSpace(vol.Run(t, "losetup", "-n", "-O", "NAME", "-j", r.Path("spare.img")))
			}

			// The next boot finds it without us, and nobody resumes what is over.
			vol.Run(t, "umount", r.dir)
			if b, err := os.ReadFile(r.fstab); err != nil || strings.Contains(string(b), " fsmigrate ") {
				t.Fatalf("fstab: %v\n%s", err, b)
			}
			r.boot()
			r.judge("booted after the recovery by hand", r.dir, 0)
			if code, out := r.cmd("resume", id); code == 0 {
				t.Errorf("resume of what was ended by hand: exit 0\n%s", out)
			}
			vol.Run(t, "umount", r.dir)
		})
	}
}

// A record that is torn, or in doubt, stops the recovery by hand before anything is mounted.
func TestRunbookStopsAtDoubt(t *testing.T) {
	for _, spoil := range []string{`echo x >>"$0/0000.json"`, `touch "$0/0000.doubt"`, `sed -i s/source/shadow/ "$0/0000.json"`} {
		t.Run(spoil, func(t *testing.T) {
			r := newRig(t, pairs[0], 300)
			r.background(nil, "run", r.dir, "--to", "xfs", "--spare", r.spare, "--id", id, "--yes", "--no-supervisor", "--policy", "asap", "--accept-erofs")
			r.waitPhase(toHold, "hold")
			r.engine.kill()
			vol.Run(t, "sh", "-c", spoil, fmt.Sprintf("%s/%s/switch", r.state, id))
			out := r.recoverByHand(r.runbookBlocks()[:3])
			if !strings.Contains(out, "STOP: ownership ambiguous") {
				t.Errorf("a spoiled record is believed:\n%s", out)
			}
		})
	}
}
