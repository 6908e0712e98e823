package copier

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"golang.org/x/sys/unix"
)

// What an application may plant while the tree is walked.
func TestOpenBeneath(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	shell(t, top, `mkdir -p root/dir/sub root/mnt outside; echo secret > outside/f; echo x > root/dir/f
ln -s ../outside root/out; ln -s /etc/passwd root/abs; ln -s dir root/in; ln -s f root/dir/flink; mkfifo root/fifo`)
	blocktest.Run(t, "mount", "-t", "tmpfs", "none", root+"/mnt")
	t.Cleanup(func() { blocktest.Run(t, "umount", root+"/mnt") })
	fd := openDir(t, root)
	for _, c := range []struct {
		name  string
		flags int
		want  error
	}{
		{"dir/f", unix.O_RDONLY, nil},
		{"dir/sub", unix.O_RDONLY | unix.O_DIRECTORY, nil},
		{"../outside/f", unix.O_RDONLY, unix.EXDEV},
		{"dir/../../outside/f", unix.O_RDONLY, unix.EXDEV},
		{"/etc/passwd", unix.O_RDONLY, unix.EXDEV},
		{"out/f", unix.O_RDONLY, unix.ELOOP},
		{"abs", unix.O_RDONLY, unix.ELOOP},
		{"in/f", unix.O_RDONLY, unix.ELOOP},
		{"dir/flink", unix.O_RDONLY, unix.ELOOP},
		{"dir/flink", unix.O_PATH | unix.O_NOFOLLOW, nil},
		{"mnt", unix.O_PATH, unix.EXDEV},
		{"absent", unix.O_RDONLY, unix.ENOENT},
		{"dir/f/x", unix.O_RDONLY, unix.ENOTDIR},
		{"nul\x00byte", unix.O_RDONLY, unix.EINVAL},
		{strings.Repeat("n", 256), unix.O_RDONLY, unix.ENAMETOOLONG},
		{strings.Repeat("./", 200) + "dir/f", unix.O_RDONLY, nil},
		{"fifo", unix.O_RDONLY | unix.O_NONBLOCK, nil},
	} {
		got, err := OpenBeneath(fd, c.name, c.flags, 0)
		if err == nil {
			unix.Close(got)
		}
		if !errorsIs(err, c.want) {
			t.Errorf("open %q: %v, want %v", c.name, err, c.want)
		}
	}
	made, err := OpenBeneath(fd, "new", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o4600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(made)
	if a := attrOf(t, root+"/new"); a.Mode != unix.S_IFREG|0o4600 {
		t.Errorf("made with mode %o", a.Mode)
	}
}

// A symbolic link swapped in for a directory, over and over, is never followed.
func TestOpenBeneathRace(t *testing.T) {
	top := t.TempDir()
	shell(t, top, "mkdir -p root/dir outside; echo inside > root/dir/f; echo outside > outside/f; ln -s ../outside root/link")
	fd := openDir(t, top+"/root")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(fd, "dir", fd, "link", unix.RENAME_EXCHANGE)
			}
		}
	}()
	buf := make([]byte, 16)
	opened := 0
	for range 20000 {
		f, err := OpenBeneath(fd, "dir/f", unix.O_RDONLY, 0)
		if err != nil {
			continue
		}
		opened++
		n, err := preadFull(f, buf, 0)
		unix.Close(f)
		if err != nil || string(buf[:n]) != "inside\n" {
			t.Errorf("read %q: %v", buf[:n], err)
			break
		}
	}
	close(stop)
	<-done
	if opened == 0 {
		t.Error("never got through: the race was not run")
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/f", []byte("x"))
	p := openPath(t, dir+"/f")
	if err := os.Remove(dir + "/f"); err != nil { // by descriptor, not by name
		t.Fatal(err)
	}
	fd, err := ReopenRead(p)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 2)
	if n, err := preadFull(fd, buf, 0); err != nil || n != 1 {
		t.Errorf("read %d: %v", n, err)
	}
}
