package vm_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vm"
)

// The programs, built once: static, because the machines have other libraries or none.
var programs struct{ fsmigrate, pledge, agent, recorder string }

var kernel *vm.Kernel

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fsmigrate-vm-")
	if err == nil {
		err = build(dir)
	}
	if err == nil {
		kernel, err = vm.LoadKernel(prepared("kernel"))
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/vm:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// prepared is where scripts/deps-vm.sh puts things.
func prepared(name string) string { return filepath.Join("..", "..", "bin", "vm", name) }

func build(dir string) error {
	for to, pkg := range map[*string]string{
		&programs.fsmigrate: "cmd/fsmigrate", &programs.pledge: "e2e/cmd/pledge", &programs.agent: "e2e/cmd/vmagent", &programs.recorder: "e2e/cmd/recorder",
	} {
		*to = filepath.Join(dir, filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", *to, "github.com/fsmigrate/fsmigrate/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// number is a number from the environment, or the one that is given.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seeded makes a random source whose seed is printed and can be given.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := number(t, "FSMIGRATE_SEED", rand.Uint64())
	t.Logf("FSMIGRATE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
