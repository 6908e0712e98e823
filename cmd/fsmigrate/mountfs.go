package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// The exit codes of a mount(8) helper.
const (
	mountOK       = 0
	mountUsage    = 1  // incorrect invocation or permissions
	mountSystem   = 2  // out of memory, cannot fork, no more loop devices
	mountInternal = 4  // internal bug
	mountUser     = 8  // user interrupt
	mountFailure  = 32 // mount failure
)

// deviceWait is how long a boot waits for the truth's device: less than the minute and a
// half after which systemd gives up on whatever mounts.
const deviceWait = time.Minute

const mountSynopsis = "mount.fsmigrate ID DIR [-sfnv] [-o OPTIONS] [-t TYPE]"

// mountHelper is mount.fsmigrate: what mount(8) calls for an fstab entry of type
// fsmigrate. It mounts the truth of the migration ID on DIR, or nothing.
func mountHelper(ctx context.Context, a *app, args []string) int {
	a.Global = defaultGlobal()
	if dir := os.Getenv("FSMIGRATE_STATE"); dir != "" {
		a.State = dir
	}
	r, err := parseMount(args, a.State)
	if err == nil {
		err = a.wire.mount(ctx, r)
	}
	if err == nil {
		if r.Verbose {
			fmt.Fprintf(a.out, "mount.fsmigrate: %s mounted on %s\n", r.ID, r.Dir)
		}
		return mountOK
	}
	f := failureOf(err)
	fmt.Fprintf(a.err, "mount.fsmigrate: %s\n", f.What)
	if f.Why != "" {
		fmt.Fprintf(a.err, "  %s\n", f.Why)
	}
	if f.Hint != "" {
		fmt.Fprintf(a.err, "  hint: %s\n", f.Hint)
	}
	switch {
	case errors.Is(err, os.ErrPermission) || f.Kind == migrate.Usage:
		return mountUsage
	case errors.Is(err, context.Canceled):
		return mountUser
	}
	return mountFailure
}

// parseMount reads the command line of a mount(8) helper. The options state=DIR and
// x-fsmigrate.state=DIR say where the state is, for a boot that has no environment, and
// wait=DURATION how long the device may take to appear;
// other x-* options are other programs' and the rest are the mount's.
func parseMount(args []string, state string) (mountRequest, error) {
	r := mountRequest{State: state, Wait: deviceWait}
	bad := func(format string, v ...any) (mountRequest, error) { return r, usagef(mountSynopsis, format, v...) }
	var names []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(arg) < 2 || arg[0] != '-' {
			names = append(names, arg)
			continue
		}
		for j := 1; j < len(arg); j++ {
			switch c := arg[j]; c {
			case 's':
				r.Sloppy = true
			case 'f':
				r.Fake = true
			case 'v':
				r.Verbose = true
			case 'n': // there is no mtab
			case 'o', 't', 'N':
				v := arg[j+1:]
				if v == "" {
					if i++; i == len(args) {
						return bad("-%c needs an argument", c)
					}
					v = args[i]
				}
				if c == 'N' {
					return bad("another mount namespace (-N) is not supported")
				}
				if c == 'o' {
					r.Options = append(r.Options, strings.Split(v, ",")...)
				}
				j = len(arg)
			default:
				return bad("unknown flag -%c", c)
			}
		}
	}
	if len(names) != 2 {
		return bad("want the migration's ID and a directory, got %d names", len(names))
	}
	r.ID, r.Dir = strings.TrimPrefix(names[0], "fsmigrate:"), names[1]
	if !migrate.ValidID(r.ID) {
		return bad("%q is not the name of a migration", names[0])
	}
	options := r.Options
	r.Options = nil
	for _, o := range options {
		key, v, _ := strings.Cut(o, "=")
		switch {
		case key == "state" || key == "x-fsmigrate.state":
			r.State = v
		case key == "wait":
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return bad("wait=%s is no duration such as 30s", v)
			}
			r.Wait = d
		case o == "" || o == "defaults" || strings.HasPrefix(o, "x-"), key == "auto" || key == "noauto" || key == "nofail" || key == "_netdev":
		default:
			r.Options = append(r.Options, o)
		}
	}
	return r, nil
}
