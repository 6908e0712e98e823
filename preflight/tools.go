package preflight

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
)

// checkTools looks for mkfs, fsck and friends in versions that are known to work.
func checkTools(ctx context.Context, l *list, t *target, _ *Options) error {
	// The place clears old signatures with it.
	common := formats.Tool{Name: "wipefs", Arg: "--version", Min: "2.23"}
	for _, tool := range append([]formats.Tool{common}, t.to.Tools()...) {
		version, err := toolVersion(ctx, tool)
		name := "tool-" + tool.Name
		switch {
		case errors.Is(err, exec.ErrNotFound):
			l.refuse(name, catKernel, "not installed", tool.Name+" "+tool.Min+" or later", "apt-get install "+packageOf(tool.Name))
		case err != nil:
			l.refuse(name, catKernel, err.Error(), tool.Name+" "+tool.Min+" or later", "reinstall "+packageOf(tool.Name))
		case version != "" && older(version, tool.Min):
			l.refuse(name, catKernel, version, tool.Min+" or later", "install a newer "+packageOf(tool.Name))
		default:
			l.ok(name, catKernel, version, tool.Min+" or later")
		}
	}
	return nil
}

var versionForm = regexp.MustCompile(`\d+(\.\d+)+`)

func toolVersion(ctx context.Context, tool formats.Tool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, tool.Name, tool.Arg).CombinedOutput()
	if v := versionForm.Find(out); v != nil {
		return string(v), nil
	}
	return "", err
}

// older compares dotted numbers.
func older(have, min string) bool {
	h, m := strings.Split(have, "."), strings.Split(min, ".")
	for i := range m {
		a, b := 0, 0
		if i < len(h) {
			a, _ = strconv.Atoi(h[i])
		}
		b, _ = strconv.Atoi(m[i])
		if a != b {
			return a < b
		}
	}
	return false
}

func packageOf(tool string) string {
	switch {
	case tool == "wipefs":
		return "util-linux"
	case strings.Contains(tool, "btrfs"):
		return "btrfs-progs"
	case strings.Contains(tool, "xfs"):
		return "xfsprogs"
	}
	return "e2fsprogs"
}

// tools lists the tools of the target with their versions, for the plan.
func tools(ctx context.Context, f formats.Format) []string {
	var out []string
	for _, tool := range f.Tools() {
		if v, err := toolVersion(ctx, tool); err == nil {
			out = append(out, tool.Name+" "+v)
		}
	}
	return out
}
