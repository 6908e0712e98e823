package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// PlanOptions are those of plan.
type PlanOptions struct {
	ChangeOptions
	Output string `flag:"output" short:"o" arg:"FILE" usage:"write the plan there (default: the standard output)"`
}

func newPlan(a *app) *cobra.Command {
	o := PlanOptions{ChangeOptions: defaultChange()}
	return a.command(spec{
		use:   "plan SOURCE --to FORMAT[:k=v,...] --spare SPARE [-o plan.yaml]",
		short: "Write the plan of a migration, for a person to review",
		long: `Looks at the volume mounted at SOURCE and at the spare, changes nothing, and
writes the plan: what changes, what it needs, what would be lost, when to cut over
and how the application is stopped. Edit it, then run it: "fsmigrate run plan.yaml".
What it observed is in it, and a difference when it is run is refused.`,
		example: `  fsmigrate plan /data --to xfs --spare /dev/vg0/new --unit postgresql.service -o plan.yaml
  fsmigrate plan /data --to ext4:inode_size=256 --spare file:/srv/new.img,size=20G --accept-erofs`,
		exits:   exits{0: "the plan was written", 1: "", 2: "", 3: "", 4: ""},
		args:    cobra.ExactArgs(1),
		options: &o,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			r, err := o.request(args[0], a.Fstab)
			if err != nil {
				return err
			}
			p, err := a.wire.makePlan(ctx, r)
			if err != nil {
				return err
			}
			return a.writePlan(p, o.Output)
		},
	})
}

// writePlan writes the plan file, where it is not overwritten, or prints it.
func (a *app) writePlan(p migrate.Plan, path string) error {
	text, err := p.Marshal()
	if err != nil {
		return err
	}
	if path == "" || path == "-" {
		return a.print(p, func(w io.Writer) { _, _ = w.Write(text) })
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return usagef("remove it, or choose another name", "%s exists, and may have been reviewed", path)
	}
	if err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write plan %s: %w", path, err), os.Remove(path))
	}
	if a.JSON {
		return a.print(p, nil)
	}
	return a.print(nil, func(w io.Writer) {
		fmt.Fprintf(w, "%s: plan of migration %s. Review it, then: fsmigrate run %s\n", path, p.ID, path)
	})
}

// planLimit is more than any plan: a larger file is something else.
const planLimit = 4 << 20

// readPlan reads a plan file that nobody else can have written: what is in it is run as root.
func readPlan(path string) (migrate.Plan, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return migrate.Plan{}, &migrate.Problem{Kind: migrate.Usage, What: "plan " + path + " cannot be read", Why: err, Hint: "fsmigrate plan writes one"}
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return migrate.Plan{}, fmt.Errorf("stat %s: %w", path, err)
	}
	refuse := func(why, hint string) (migrate.Plan, error) {
		return migrate.Plan{}, &migrate.Problem{Kind: migrate.IsRefused, What: fmt.Sprintf("plan %s %s", path, why), Hint: hint}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return refuse("is no regular file", "name the file itself")
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return refuse(fmt.Sprintf("belongs to user %d, who could make it run anything as you", st.Uid), "review it, then: chown root "+path)
	case st.Mode&0o022 != 0:
		return refuse("can be written by others than its owner", "review it, then: chmod go-w "+path)
	}
	text, err := io.ReadAll(io.LimitReader(f, planLimit+1))
	if err == nil && len(text) > planLimit {
		err = fmt.Errorf("more than %d bytes", planLimit)
	}
	if err != nil {
		return migrate.Plan{}, &migrate.Problem{Kind: migrate.Usage, What: "plan " + path + " cannot be read", Why: err}
	}
	p, err := migrate.ParsePlan(text)
	if err != nil {
		return migrate.Plan{}, &migrate.Problem{Kind: migrate.KindOf(err), What: "plan " + path, Why: err, Hint: migrate.HintOf(err)}
	}
	return p, nil
}

// isPlan tells PLAN from SOURCE on the command line, by its name.
func isPlan(arg string) bool {
	ext := filepath.Ext(arg)
	return ext == ".yaml" || ext == ".yml"
}
