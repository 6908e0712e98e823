package shadow

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// A watch that died is replaced by the next pass, which looks for all that it missed.
func TestTreeReplacesADeadWatch(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4", noSub: true})
	var told []string
	tree := newTreeRig(t, r, &told)
	ctx := context.Background()
	must(t, tree.Prepare(ctx, migrate.Shadow))
	must(t, tree.Copy(ctx))
	r.caughtUp(tree)
	w := tree.watches[migrate.Source]
	w.mu.Lock()
	w.buf = w.buf[:8] // too small for any event: EINVAL
	w.mu.Unlock()
	write := func(name, content string) {
		must(t, os.WriteFile(filepath.Join(r.o.Dir, name), []byte(content), 0o644))
	}
	write("file", "missed")
	<-w.done
	write("who", "missed too")
	copied := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", tree.active().to.fd, name))
		if err != nil || string(got) != want {
			t.Errorf("%s on the shadow is %q, %v, want %q", name, got, err, want)
		}
	}
	r.caughtUp(tree)
	copied("file", "missed")
	copied("who", "missed too")
	if again := tree.watches[migrate.Source]; again == w || again.Lost() {
		t.Fatalf("the dead watch goes on: %v", again == w)
	}
	write("file", "heard")
	must(t, tree.watches[migrate.Source].Barrier(ctx))
	if tree.active().journal.Len() == 0 {
		t.Error("the new watch hears nothing")
	}
	r.caughtUp(tree)
	copied("file", "heard")
	must(t, tree.Abort(ctx))
	must(t, tree.Close())
}
