package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// The programs under test, built once.
var programs struct{ fsmigrate, mountHelper, churn, pledge, program, recorder string }

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fsmigrate-e2e-")
	if err == nil {
		err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build the programs under test:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir string) error {
	programs.fsmigrate = filepath.Join(dir, "fsmigrate")
	programs.mountHelper = filepath.Join(dir, "mount.fsmigrate")
	programs.churn = filepath.Join(dir, "churn")
	programs.pledge = filepath.Join(dir, "pledge")
	programs.program = filepath.Join(dir, "program")
	programs.recorder = filepath.Join(dir, "recorder")
	const module = "github.com/fsmigrate/fsmigrate"
	targets := map[string]string{
		programs.churn: module + "/e2e/cmd/churn", programs.pledge: module + "/e2e/cmd/pledge", programs.recorder: module + "/e2e/cmd/recorder",
		programs.program: module + "/e2e/cmd/program",
	}
	if bin := os.Getenv("FSMIGRATE_BIN"); bin == "" {
		targets[programs.fsmigrate] = module + "/cmd/fsmigrate"
	} else if err := os.Symlink(bin, programs.fsmigrate); err != nil {
		return err
	}
	for out, pkg := range targets {
		if text, err := exec.Command("go", "build", "-o", out, pkg).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", pkg, err, text)
		}
	}
	return os.Symlink(programs.fsmigrate, programs.mountHelper)
}

// long asks for the suite that takes hours.
func long() bool { return os.Getenv("FSMIGRATE_LONG") == "1" }

// seeded makes a random source whose seed is printed and can be given.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("FSMIGRATE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("FSMIGRATE_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("FSMIGRATE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
