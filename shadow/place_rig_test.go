package shadow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	_ "github.com/fsmigrate/fsmigrate/formats/btrfs"
	_ "github.com/fsmigrate/fsmigrate/formats/ext"
	_ "github.com/fsmigrate/fsmigrate/formats/xfs"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// placeRig is a source volume in use at Dir, with a submount, and a blank spare.
type placeRig struct {
	t      *testing.T
	o      PlaceOptions
	parent string
	source string // loop devices
	spare  string

	context  string // of the oracle's next failure
	follower *tenant

	mu    sync.Mutex
	warns []string
}

type rigOptions struct {
	from, to string
	private  bool // Dir's parent is private; shared is what systemd makes
	options  string
	noSub    bool
}

func newPlaceRig(t *testing.T, ro rigOptions) *placeRig {
	t.Helper()
	if ro.options == "" {
		ro.options = "nosuid,nodev,noatime"
	}
	base := t.TempDir()
	r := &placeRig{t: t, parent: filepath.Join(base, "p")}
	r.source, r.spare = r.loop(base, "source", ro.from), r.loop(base, "spare", ro.to)
	must(t, os.MkdirAll(r.parent, 0o755))
	must(t, os.MkdirAll(filepath.Join(base, "state"), 0o700))
	r.sh("mount", "-t", "tmpfs", "rig", r.parent)
	t.Cleanup(func() { r.unmountAll() })
	if ro.private {
		r.sh("mount", "--make-private", r.parent)
	} else {
		r.sh("mount", "--make-shared", r.parent)
	}
	dir := filepath.Join(r.parent, "data")
	must(t, os.MkdirAll(dir, 0o755))
	switch ro.from {
	case "xfs", "btrfs":
		r.sh("mkfs."+ro.from, "-q", "-f", r.source)
	default:
		r.sh("mkfs."+ro.from, "-q", "-F", r.source)
	}
	r.sh("mount", "-o", ro.options, r.source, dir)
	must(t, os.WriteFile(filepath.Join(dir, "who"), []byte("source"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("data"), 0o644))
	must(t, os.MkdirAll(filepath.Join(dir, "sub", "deep"), 0o755))
	if !ro.noSub {
		r.sh("mount", "-t", "tmpfs", "-o", "nosuid", "sub", filepath.Join(dir, "sub", "deep"))
		must(t, os.WriteFile(filepath.Join(dir, "sub", "deep", "in-submount"), []byte("x"), 0o644))
	}
	dev := func(path string) migrate.DeviceSpec {
		d, err := blockdev.Identify(path)
		must(t, err)
		return migrate.DeviceSpec{Path: path, IDs: d.IDs, Bytes: d.Bytes}
	}
	uuid, err := exec.Command("blkid", "-p", "-o", "value", "-s", "UUID", r.source).Output()
	must(t, err)
	r.o = PlaceOptions{
		ID: "rig", Dir: dir, Source: dev(r.source), Spare: dev(r.spare),
		SourceFormat: ro.from, SourceUUID: strings.TrimSpace(string(uuid)), TargetFormat: ro.to,
		MountOptions: ro.options, Objects: 1000, Label: "new", StateDir: filepath.Join(base, "state"),
		Warn: func(what, why, _ string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.warns = append(r.warns, what+": "+why)
		},
	}
	return r
}

func (r *placeRig) loop(base, name, format string) string {
	r.t.Helper()
	size := int64(128 << 20)
	if format == "xfs" {
		size = 320 << 20
	}
	file := filepath.Join(base, name+".img")
	f, err := os.Create(file)
	must(r.t, err)
	must(r.t, f.Truncate(size))
	must(r.t, f.Close())
	l, err := blockdev.AttachLoop(file, blockdev.LoopOptions{})
	must(r.t, err)
	r.t.Cleanup(func() {
		r.soon("the loop of "+file+" cannot be detached", func() bool { return l.Detach() == nil })
		// The loop goes when the last user does: a leaked mount shows here.
		r.soon("the loop of "+file+" is still attached", func() bool {
			l, err := blockdev.LoopOf(file)
			return err == nil && l == nil
		})
	})
	return l.Path
}

// soon waits for what the kernel does after the last user is gone.
func (r *placeRig) soon(what string, done func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			r.t.Error(what)
			return
		}
	}
}

// fence fences a side. Mount namespaces that other tests of this machine make meanwhile
// copy our mounts, and are rightly refused: those are waited for.
func (r *placeRig) fence(p *Place, side migrate.Side) {
	r.t.Helper()
	r.soon("the "+string(side)+" cannot be fenced", func() bool {
		err := p.Fence(context.Background(), side)
		var busy *migrate.Busy
		if errors.As(err, &busy) && !slices.ContainsFunc(busy.Holders, func(h migrate.Holder) bool { return h.Kind != "mount" || h.PID == 0 }) {
			return false
		}
		must(r.t, err)
		return true
	})
}

// unmountAll takes down what is mounted below the rig, and fails when anything
// of its devices is left.
func (r *placeRig) unmountAll() {
	for range 50 {
		infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Dir(r.parent)))
		if err != nil {
			r.t.Error(err)
			return
		}
		if len(infos) == 0 {
			return
		}
		for i := len(infos) - 1; i >= 0; i-- {
			_ = unix.Unmount(infos[i].Mountpoint, unix.MNT_DETACH)
		}
	}
	r.t.Error("mounts of the rig cannot be taken down")
}

func (r *placeRig) open() *Place {
	r.t.Helper()
	p, err := OpenPlace(r.o)
	must(r.t, err)
	r.t.Cleanup(func() { _ = p.Close() })
	return p
}

// prepared is a place whose shadow is made and holds a copy.
func (r *placeRig) prepared() *Place {
	r.t.Helper()
	p := r.open()
	ctx := context.Background()
	must(r.t, p.Make(ctx))
	_, err := p.Open(ctx, migrate.Source, false)
	must(r.t, err)
	t, err := p.Open(ctx, migrate.Shadow, true)
	must(r.t, err)
	root := fmt.Sprintf("/proc/self/fd/%d/", t.Fd())
	must(r.t, os.WriteFile(root+"who", []byte("shadow"), 0o644))
	must(r.t, os.WriteFile(root+"file", []byte("data"), 0o644))
	must(r.t, os.MkdirAll(root+"sub/deep", 0o755))
	return p
}

// settled is the oracle: exactly one volume is visible and writable at Dir, it
// is the truth, mounted as the options say, and nobody can write to the other.
func (r *placeRig) settled(truth migrate.Side) {
	r.t.Helper()
	r.settledAlone(truth)
	if _, err := os.Stat(filepath.Join(r.o.Dir, "sub/deep/in-submount")); err != nil {
		r.t.Fatalf("%s: the submount is gone: %v", r.context, err)
	}
}

// settledAlone is settled without a look at submounts.
func (r *placeRig) settledAlone(truth migrate.Side) {
	r.t.Helper()
	who, err := os.ReadFile(filepath.Join(r.o.Dir, "who"))
	must(r.t, err)
	if string(who) != string(truth) {
		r.t.Fatalf("%s: %s shows the %s, the truth is the %s", r.context, r.o.Dir, who, truth)
	}
	probe := filepath.Join(r.o.Dir, "probe")
	must(r.t, os.WriteFile(probe, nil, 0o600))
	must(r.t, os.Remove(probe))
	devs := map[migrate.Side]string{migrate.Source: r.source, migrate.Shadow: r.spare}
	for _, line := range r.everyMount() {
		dev, opts, point := line[0], line[1], line[2]
		if dev == devs[truth.Other()] && !hasOption(opts, "ro") {
			r.t.Fatalf("%s: the %s has a writable mount at %s (%s)", r.context, truth.Other(), point, opts)
		}
		if dev == devs[truth.Other()] && point == r.o.Dir && line[3] == "own" {
			r.t.Fatalf("%s: the %s is still mounted at %s", r.context, truth.Other(), point)
		}
	}
	top := r.topmost()
	for _, o := range strings.Split(r.o.MountOptions, ",") {
		if !hasOption(top.Options, o) {
			r.t.Fatalf("%s: %s lost the option %s: %s", r.context, r.o.Dir, o, top.Options)
		}
	}
}

// everyMount lists device, options, place and "own" or "other" of all mounts of all processes.
func (r *placeRig) everyMount() [][4]string {
	r.t.Helper()
	self, err := os.Readlink("/proc/self/ns/mnt")
	must(r.t, err)
	seen := map[string]bool{}
	files, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	must(r.t, err)
	var out [][4]string
	for _, f := range files {
		ns, err := os.Readlink(filepath.Join(filepath.Dir(f), "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		whose := "other"
		if ns == self {
			whose = "own"
		}
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			_, tail, _ := strings.Cut(line, " - ")
			out = append(out, [4]string{strings.Fields(tail)[1], fields[5], fields[4], whose})
		}
	}
	return out
}

func (r *placeRig) topmost() *mountinfo.Info {
	r.t.Helper()
	infos, err := mountinfo.GetMounts(nil)
	must(r.t, err)
	id, err := mountIDAt(r.o.Dir)
	must(r.t, err)
	for _, i := range infos {
		if i.ID == id {
			return i
		}
	}
	r.t.Fatalf("nothing is mounted at %s", r.o.Dir)
	return nil
}

func mountIDAt(path string) (int, error) {
	fd, err := openTop(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return mountID(fd)
}

func (r *placeRig) sh(argv ...string) {
	r.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	var busy *migrate.Busy
	if errors.As(err, &busy) {
		t.Fatalf("%v: %+v", err, busy.Holders)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A tenant is another process that holds things on a volume and tries to write
// to it, by every road. It is this test binary once more.
type tenant struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// newTenant starts one, in a mount namespace of that propagation ("" for ours).
func newTenant(t *testing.T, propagation string) *tenant {
	t.Helper()
	argv := []string{os.Args[0], "-test.run=^TestPlaceTenant$"}
	if propagation != "" {
		argv = append([]string{"unshare", "-m", "--propagation", propagation, "--"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "FSMIGRATE_TENANT=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	w := &tenant{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(w.end)
	w.do("hello")
	return w
}

func (w *tenant) pid() int { return w.cmd.Process.Pid }

func (w *tenant) end() {
	if w.in == nil {
		return
	}
	w.in.Close()
	w.in = nil
	if err := w.cmd.Wait(); err != nil {
		w.t.Errorf("tenant: %v", err)
	}
}

// try sends a request and returns the error it met.
func (w *tenant) try(request ...string) error {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.in, strings.Join(request, "\t")); err != nil {
		w.t.Fatal(err)
	}
	line, err := w.out.ReadString('\n')
	if err != nil {
		w.t.Fatalf("tenant is gone: %v", err)
	}
	switch line = strings.TrimSuffix(line, "\n"); {
	case line == "ok":
		return nil
	case line == "EROFS":
		return unix.EROFS
	default:
		return errors.New(line)
	}
}

func (w *tenant) do(request ...string) {
	w.t.Helper()
	if err := w.try(request...); err != nil {
		w.t.Fatalf("tenant: %v: %v", request, err)
	}
}

// TestPlaceTenant is the tenant's side; run by itself it does nothing.
func TestPlaceTenant(t *testing.T) {
	if os.Getenv("FSMIGRATE_TENANT") == "" {
		return
	}
	in := bufio.NewScanner(os.Stdin)
	st := tenantState{}
	for in.Scan() {
		err := st.serve(strings.Split(in.Text(), "\t"))
		switch {
		case err == nil:
			fmt.Println("ok")
		case errors.Is(err, unix.EROFS):
			fmt.Println("EROFS")
		default:
			fmt.Println(err)
		}
	}
	os.Exit(0)
}

type tenantState struct {
	file *os.File
	mem  []byte
	tree int
}

func (s *tenantState) serve(req []string) (err error) {
	switch req[0] {
	case "hello":
	case "cd":
		return os.Chdir(req[1])
	case "open": // for reading
		s.file, err = os.Open(req[1])
	case "open-write":
		s.file, err = os.OpenFile(req[1], os.O_RDWR, 0)
	case "close":
		err = s.file.Close()
		s.file = nil
	case "map":
		s.mem, err = unix.Mmap(int(s.file.Fd()), 0, 4, unix.PROT_READ, unix.MAP_SHARED)
	case "map-write":
		s.mem, err = unix.Mmap(int(s.file.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	case "unmap":
		err = unix.Munmap(s.mem)
	case "unlink":
		err = os.Remove(req[1])
	case "write": // by path, also one relative to the working directory
		err = os.WriteFile(req[1], []byte("tenant"), 0o644)
	case "reopen-write": // through the old descriptor
		var f *os.File
		if f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", s.file.Fd()), os.O_RDWR, 0); err == nil {
			err = f.Close()
		}
	case "chmod-fd":
		err = s.file.Chmod(0o600)
	case "read":
		var b []byte
		if b, err = os.ReadFile(req[1]); err == nil && string(b) != req[2] {
			err = fmt.Errorf("read %q", b)
		}
	case "mount":
		err = unix.Mount(req[1], req[2], req[3], 0, "")
	case "bind":
		err = unix.Mount(req[1], req[2], "", unix.MS_BIND, "")
	case "bind-ro":
		err = unix.Mount("", req[1], "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	case "umount":
		err = unix.Unmount(req[1], unix.MNT_DETACH)
	case "clone": // a detached mount that only this process holds
		s.tree, err = unix.OpenTree(unix.AT_FDCWD, req[1], unix.OPEN_TREE_CLONE|unix.O_CLOEXEC)
	case "unseal": // what only root can do: it takes the seal off its own clone
		err = blockdev.SealFd(s.tree, false)
	case "write-clone":
		err = os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/clone", s.tree), nil, 0o644)
	default:
		err = fmt.Errorf("unknown request %q", req)
	}
	return err
}
