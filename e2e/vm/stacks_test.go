package vm_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// stack is a storage stack, below the volume and below the spare.
type stack struct {
	id    string
	setup string // makes both, of two or four whole disks
	disks int
	from  string // as findmnt shows it
	spare string
	kind  string // the layer that the check of the stack has to find
}

var stacks = []stack{
	{"lvm", "for v in old:$1 new:$2; do vgcreate -qy l${v%%:*} ${v#*:} && lvcreate -qy -n vol -l 90%FREE l${v%%:*}; done",
		2, "/dev/mapper/lold-vol", "/dev/lnew/vol", "dm-linear"},
	{"thin", "for v in old:$1 new:$2; do vgcreate -qy t${v%%:*} ${v#*:} && lvcreate -qy --type thin-pool -n pool -l 80%FREE t${v%%:*} && lvcreate -qy -n vol -V 120M --thinpool pool t${v%%:*}; done",
		2, "/dev/mapper/told-vol", "/dev/tnew/vol", "dm-thin"},
	{"md", "for v in 10:$1:$2 11:$3:$4; do IFS=:; set -- $v; unset IFS; mdadm --create /dev/md${1} --run --quiet --level=1 --assume-clean --raid-devices=2 --metadata=1.2 $2 $3; done" +
		"; mkdir -p /etc/mdadm; (echo MAILADDR root; mdadm --detail --scan) >/etc/mdadm/mdadm.conf", 4, "/dev/md10", "/dev/md11", "md-raid1"},
	{"luks", "for v in old:$1 new:$2; do cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /etc/key ${v#*:}" +
		" && cryptsetup open --key-file /etc/key ${v#*:} c${v%%:*} && echo c${v%%:*} UUID=$(blkid -p -s UUID -o value ${v#*:}) /etc/key luks >>/etc/crypttab; done",
		2, "/dev/mapper/cold", "/dev/mapper/cnew", "dm-crypt"},
	{"part", "true", 2, "/dev/disk/by-partlabel/old", "/dev/disk/by-partlabel/new", "partition"},
}

// A migration from each stack to its like, with boots in Hold, in Reverse after a power cut, and
// after the end: volumes are found again by names that the stack gives them, however
// late at boot it is put together.
func TestStacks(t *testing.T) {
	g := newDebian(t, "", map[string]string{"etc/key": strings.Repeat("k", 64)})
	next := 'c'
	arguments := map[string]string{}
	for _, s := range stacks {
		for n := range s.disks {
			image := g.Image(160)
			if s.id == "part" {
				script := g.Path("table")
				if err := os.WriteFile(script, fmt.Appendf(nil, "label: gpt\nname=%s\n", []string{"old", "new"}[n]), 0o600); err != nil {
					t.Fatal(err)
				}
				vol.Run(t, "sh", "-c", "sfdisk -q "+image+" <"+script)
			}
			g.disk(fmt.Sprintf("%s%d", s.id, n), image)
			arguments[s.id] += " /dev/vd" + string(next)
			next++
		}
	}
	g.on()
	g.Sh(time.Minute, "modprobe -a dm-thin-pool dm-crypt raid1")
	for _, s := range stacks {
		g.Sh(3*time.Minute, fmt.Sprintf(`exec 2>&1; set -e; set -- %s
%s
udevadm settle; mkdir -p /s/%[3]s; mkfs.ext4 -q -F -I 128 %[4]s; mount %[4]s /s/%[3]s
echo "UUID=$(blkid -p -s UUID -o value %[4]s) /s/%[3]s ext4 defaults 0 2" >>/etc/fstab
cd /s/%[3]s; mkdir d; for n in $(seq 200); do head -c $((n * 79 %% 9000)) /dev/urandom >d/$n; done; sha256sum d/* >/var/lib/%[3]s.sha256`, arguments[s.id], s.setup, s.id, s.from))
	}
	g.Sh(time.Minute, "systemctl daemon-reload; systemctl disable --now app.service")

	for _, s := range stacks {
		out := g.fsmigrate("run", "/s/"+s.id, "--to", "ext4:inode_size=256", "--spare", s.spare, "--id", s.id, "--yes", "--accept-erofs", "--policy", "asap",
			"--pause-budget", "2m", "--deadline", "4m", "--detach")
		_, line, _ := strings.Cut(out, " stack  ")
		line, _, _ = strings.Cut(line, "  ok")
		source, spare, _ := strings.Cut(line, "spare:")
		if !strings.Contains(source, s.kind) || !strings.Contains(spare, s.kind) {
			t.Errorf("%s: the stack is told as %q", s.id, line)
		}
	}
	g.all("hold", func(s stack) string { return s.from })
	g.off()

	g.on() // in Hold
	g.all("hold", func(s stack) string { return s.from })
	for _, s := range stacks {
		g.cutover(s.id)
	}
	g.all("reverse", func(s stack) string { return s.spare })
	g.Kill()

	g.on() // in Reverse
	g.all("reverse", func(s stack) string { return s.spare })
	for _, s := range stacks {
		g.fsmigrate("finalize", s.id)
	}
	g.off()

	g.on() // by native entries
	g.all("", func(s stack) string { return s.spare })
	g.Sh(time.Minute, "! grep fsmigrate /etc/fstab")
	g.off()
}

// all requires of every stack that its volume is in place, whole, and that the migration
// has come to the phase, if one is named.
func (g *debian) all(phase string, device func(stack) string) {
	g.t.Helper()
	for _, s := range stacks {
		g.is("active", "systemctl is-active $(systemd-escape -p --suffix=mount /s/"+s.id+")")
		g.is("yes", fmt.Sprintf("[ \"$(readlink -f $(findmnt -rn -o SOURCE -M /s/%s))\" = \"$(readlink -f %s)\" ] && echo yes", s.id, device(s)))
		if phase != "" {
			g.is("active", "systemctl is-active fsmigrate@"+s.id+".service")
			g.fsmigrate("wait", s.id, "--for", phase, "--timeout", "4m")
		}
		g.Sh(time.Minute, fmt.Sprintf("cd /s/%s && sha256sum -c --quiet /var/lib/%[1]s.sha256 && [ $(ls d | wc -l) = 200 ]", s.id))
		g.t.Logf("%s: %s on %s", s.id, phase, device(s))
	}
}
