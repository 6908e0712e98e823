package pledge_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	"golang.org/x/sys/unix"
)

const ops = 220

// worked is a directory on which three workers did their operations, and what they did.
func worked(t *testing.T, seed uint64) (dir string, h *pledge.History, log string) {
	t.Helper()
	return workedAs(t, seed, "files")
}

func workedAs(t *testing.T, seed uint64, mix string) (dir string, h *pledge.History, log string) {
	t.Helper()
	lab := t.TempDir()
	dir, log = filepath.Join(lab, "data"), filepath.Join(lab, "log")
	marks := filepath.Join(lab, "marks")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(marks, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := pledge.Options{Dir: dir, Log: log, Marks: marks, Seed: seed, Mix: mix, Workers: 3, Ops: ops / 2, Lie: true}
	for range 2 { // it goes on where it was
		if err := pledge.Run(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		o.Ops = ops
	}
	h, err := pledge.ReadHistory(log)
	if err != nil {
		t.Fatal(err)
	}
	return dir, h, log
}

var done = []int{ops, ops, ops}

func judge(t *testing.T, h *pledge.History, dir string, acked []int) []string {
	t.Helper()
	wrong, err := h.Judge(dir, acked)
	if err != nil {
		t.Fatal(err)
	}
	return wrong
}

// What each kind of application did is found as it was done, and not as it was before.
func TestJudgeOfEveryMix(t *testing.T) {
	for _, mix := range pledge.Mixes() {
		dir, h, _ := workedAs(t, 7, mix)
		if wrong := judge(t, h, dir, done); len(wrong) > 0 {
			t.Errorf("%s:\n%s", mix, strings.Join(wrong, "\n"))
		}
		before := slices.Clone(done)
		before[1] -= 12
		if wrong := judge(t, h, dir, before); len(wrong) == 0 {
			t.Errorf("%s: twelve operations that nobody acknowledged were not found", mix)
		}
	}
}

// Everything that was done is found as it was done, all kinds of it; and when one
// operation less was acknowledged, what it did is allowed as well.
func TestJudgeAcceptsWhatWasDone(t *testing.T) {
	kinds := map[pledge.Kind]int{}
	for seed := range uint64(6) {
		dir, h, log := worked(t, seed)
		if wrong := judge(t, h, dir, done); len(wrong) > 0 {
			t.Fatalf("seed %d:\n%s", seed, strings.Join(wrong, "\n"))
		}
		for w := range 3 {
			acked := slices.Clone(done)
			acked[w]--
			if wrong := judge(t, h, dir, acked); len(wrong) > 0 {
				t.Errorf("seed %d, worker %d acknowledged one less:\n%s", seed, w, strings.Join(wrong, "\n"))
			}
		}
		byWorker, err := pledge.ReadLog(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range byWorker {
			for _, o := range list {
				kinds[o.Kind]++
			}
		}
	}
	for _, k := range []pledge.Kind{
		pledge.Create, pledge.Append, pledge.Overwrite, pledge.Store, pledge.Truncate, pledge.Replace,
		pledge.Rename, pledge.Link, pledge.Unlink, pledge.Symlink, pledge.Mkdir, pledge.Attr,
	} {
		if kinds[k] == 0 {
			t.Errorf("nothing of kind %s was ever done", k)
		}
	}
}

// Where the log is gone, the seed alone gives the same history, and it is judged the same.
func TestScriptIsWhatWasDone(t *testing.T) {
	dir, _, _ := worked(t, 11)
	h, err := pledge.Script(11, done)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := judge(t, h, dir, done); len(wrong) > 0 {
		t.Errorf("what was done is wrong:\n%s", strings.Join(wrong, "\n"))
	}
	if h, err = pledge.Script(12, done); err != nil {
		t.Fatal(err)
	}
	if wrong := judge(t, h, dir, done); len(wrong) == 0 {
		t.Error("what another seed would have done is found as well")
	}
}

// A disk of acknowledgments holds the last of each worker, also of those who came later
// than others; one that is torn is an error and no number.
func TestReadAcks(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "acks")
	b := make([]byte, 5*pledge.AckSize)
	copy(b[pledge.AckSize:], "ack 1 17\n")
	copy(b[3*pledge.AckSize:], "ack 3 4\n")
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := pledge.ReadAcks(disk); err != nil || !slices.Equal(got, []int{0, 17, 0, 4}) {
		t.Errorf("acknowledged: %v, %v", got, err)
	}
	copy(b[3*pledge.AckSize:], "ack 2 4\n")
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := pledge.ReadAcks(disk); err == nil {
		t.Errorf("another worker's acknowledgment is taken: %v", got)
	}
}

// Only a replacement's first name that is there again is told apart from what is wrong.
func TestRevived(t *testing.T) {
	dir, h, log := worked(t, 11)
	byWorker, err := pledge.ReadLog(log)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(byWorker[0], func(o pledge.Op) bool { return o.Kind == pledge.Replace })
	name := byWorker[0][i].Path
	for extra, revived := range map[string]bool{".new": true, ".other": false} {
		path := filepath.Join(dir, name+extra)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if wrong := judge(t, h, dir, done); len(wrong) != 1 || pledge.Revived(wrong[0]) != revived {
			t.Errorf("%s: %q", extra, wrong)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if pledge.Revived("w0/f1.new: acknowledged, and not there") {
		t.Error("what is missing was not revived")
	}
}

// An earlier state is not taken for a later one: with several operations undone by hand
// (fewer acknowledged), or more acknowledged than were done, it is found.
func TestJudgeFindsWhatIsMissing(t *testing.T) {
	dir, h, _ := worked(t, 42)
	for w := range 3 {
		acked := slices.Clone(done)
		acked[w] -= 12
		if wrong := judge(t, h, dir, acked); len(wrong) == 0 {
			t.Errorf("worker %d: twelve operations that nobody acknowledged were not found", w)
		}
	}
	if _, err := h.Judge(dir, []int{ops, ops + 1, ops}); err == nil {
		t.Error("an acknowledgment of what was never begun is no error")
	}
}

// Each error, planted alone, is found at its place.
func TestJudgeFindsPlantedErrors(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, file, link, dir string) error{
		"missing":   func(_ *testing.T, f, _, _ string) error { return os.Remove(f) },
		"one byte":  func(_ *testing.T, f, _, _ string) error { return flip(f) },
		"shorter":   func(_ *testing.T, f, _, _ string) error { return shorten(f) },
		"longer":    func(_ *testing.T, f, _, _ string) error { return lengthen(f) },
		"mode":      func(_ *testing.T, f, _, _ string) error { return os.Chmod(f, 0o601) },
		"xattr":     func(_ *testing.T, f, _, _ string) error { return unix.Setxattr(f, "user.pledge", []byte("x"), 0) },
		"a file":    func(_ *testing.T, _, _, d string) error { return os.WriteFile(filepath.Join(d, "x"), nil, 0o600) },
		"a link":    func(_ *testing.T, f, _, d string) error { return os.Link(f, filepath.Join(d, "x")) },
		"the text":  func(_ *testing.T, _, l, _ string) error { return relink(l) },
		"the type":  func(_ *testing.T, _, l, _ string) error { return retype(l) },
		"zeros":     func(_ *testing.T, f, _, _ string) error { return zero(f) },
		"separated": func(_ *testing.T, f, _, _ string) error { return separate(f) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, h, _ := worked(t, 7)
			file, link := pick(t, dir, name == "separated")
			if err := plant(t, file, link, dir); err != nil {
				t.Fatal(err)
			}
			if len(judge(t, h, dir, done)) == 0 {
				t.Error("not found")
			}
		})
	}
}

// pick is a file that is not empty, with more than one name if linked, and a symlink.
func pick(t *testing.T, dir string, linked bool) (file, link string) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			link = p
		case info.Mode().IsRegular() && info.Size() > 100 && (st.Nlink > 1) == linked:
			file = p
		}
		return nil
	})
	if err != nil || file == "" || link == "" {
		t.Fatalf("file %q, symlink %q: %v", file, link, err)
	}
	return file, link
}

func edit(f string, do func(b []byte) []byte) error {
	b, err := os.ReadFile(f)
	if err != nil {
		return err
	}
	return os.WriteFile(f, do(b), 0o600)
}

func flip(f string) error     { return edit(f, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) }
func shorten(f string) error  { return edit(f, func(b []byte) []byte { return b[:len(b)-1] }) }
func lengthen(f string) error { return edit(f, func(b []byte) []byte { return append(b, 0) }) }
func zero(f string) error     { return edit(f, func(b []byte) []byte { return make([]byte, len(b)) }) }

func relink(l string) error {
	if err := os.Remove(l); err != nil {
		return err
	}
	return os.Symlink("elsewhere", l)
}

func retype(l string) error {
	if err := os.Remove(l); err != nil {
		return err
	}
	return os.Mkdir(l, 0o755)
}

// separate makes one of two names another file, equal in everything.
func separate(f string) error {
	b, err := os.ReadFile(f)
	if err != nil {
		return err
	}
	info, err := os.Stat(f)
	if err != nil {
		return err
	}
	if err := os.Remove(f); err != nil {
		return err
	}
	if err := os.WriteFile(f, b, 0o600); err != nil {
		return err
	}
	return os.Chmod(f, info.Mode())
}
