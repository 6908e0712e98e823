package status

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Proposal is a plan with what was found when it was looked at.
type Proposal struct {
	Plan     migrate.Plan    `json:"plan"`
	Checks   []migrate.Check `json:"checks"`
	Forecast Forecast        `json:"forecast"`
}

// Forecast is what the migration is expected to take. Zero fields are not known.
type Forecast struct {
	Bytes       int64         `json:"bytes"`        // used on the target when it is filled
	MarginBytes int64         `json:"margin_bytes"` // asked for beyond that
	Objects     int64         `json:"objects"`      // inodes used on the target
	Copy        time.Duration `json:"copy_ns"`      // the first walk
	Verify      time.Duration `json:"verify_ns"`
	Pause       time.Duration `json:"pause_ns"` // if cut over with what is being written now
}

// Refused lists the checks that forbid the migration.
func (p Proposal) Refused() []migrate.Check {
	var list []migrate.Check
	for _, c := range p.Checks {
		if c.Verdict == migrate.Refused {
			list = append(list, c)
		}
	}
	return list
}

// ProposalPage writes the plan for a person to review.
func ProposalPage(w io.Writer, p Proposal) {
	plan := p.Plan
	fmt.Fprintf(w, "Migration %s: %s from %s to %s\n", plan.ID, Safe(plan.Source.Mount), plan.Source.Format, formatLine(plan.Target))
	fmt.Fprintf(w, "Take a backup first; fsmigrate isn't one.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("category", "%s", plan.Category)
	row("source", "%s, %s", Safe(plan.Source.Mount), deviceLine(plan.Source.Device))
	row("spare", "%s%s", deviceLine(plan.Target.Spare), wipeNote(plan.Target))
	row("holds", "%s objects, %s", Count(plan.Observed.Objects), Bytes(plan.Observed.Bytes))
	row("takes", "%s", forecastLine(p.Forecast))
	row("tracker", "%s", plan.Tracker)
	row("service", "%s", serviceLine(plan.Service))
	row("cutover", "%s", cutoverLine(plan.Cutover))
	row("copy", "%s", copyLine(plan.Copy))
	row("boot", "%s", bootLine(plan.Persist))
	_ = t.Flush()

	fmt.Fprintf(w, "\nWhat the target cannot hold:\n")
	fitTable(w, plan)
	fmt.Fprintf(w, "\nChecks:\n")
	CheckTable(w, p.Checks)
}

// CheckTable writes the checks, those that need attention with their remedy. A row
// that is longer than a terminal is wide goes on below itself.
func CheckTable(w io.Writer, checks []migrate.Check) {
	if len(checks) == 0 {
		fmt.Fprintln(w, "  none were made")
		return
	}
	count := map[migrate.Verdict]int{}
	name := 0
	for _, c := range checks {
		count[c.Verdict]++
		name = max(name, len(c.Name))
	}
	name = min(name, 24)
	for _, c := range checks {
		verdict := string(c.Verdict)
		if c.Verdict == migrate.Refused {
			verdict = "REFUSED"
		}
		if c.Impossible {
			verdict = "IMPOSSIBLE"
		}
		lead := fmt.Sprintf("  %-7s  %-*s  ", verdict, name, c.Name)
		found, need := Safe(dash(c.Found)), Safe(dash(c.Need))
		indent := strings.Repeat(" ", 2+7+2+name+2)
		switch {
		case c.Verdict == migrate.OK: // what is needed is there
			hang(w, lead, indent, found)
		case len(lead)+len(found)+len("; need ")+len(need) <= tableWidth:
			fmt.Fprintf(w, "%s%s; need %s\n", lead, found, need)
		default:
			hang(w, lead, indent, found)
			hang(w, indent+"need ", indent+"     ", need)
		}
		hint := c.Remedy
		if c.Verdict == migrate.Refused && c.Waivable && !strings.Contains(hint, "--waive") {
			hint = strings.TrimPrefix(hint+"; or accept it: --waive "+c.Name+"=REASON", "; or ")
		}
		if c.Verdict != migrate.OK && hint != "" {
			hang(w, indent+"hint: ", indent+"      ", Safe(hint))
		}
	}
	fmt.Fprintf(w, "  %d ok, %d warnings, %d waived, %d refused\n",
		count[migrate.OK], count[migrate.Warning], count[migrate.Waived], count[migrate.Refused])
}

// tableWidth is how wide the table of checks may get where words allow it.
const tableWidth = 120

// hang writes text after lead, broken between words, the further lines after indent.
func hang(w io.Writer, lead, indent, text string) {
	line, empty := lead, true
	for word := range strings.FieldsSeq(text) {
		if !empty && len(line)+1+len(word) > tableWidth {
			fmt.Fprintln(w, line)
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	fmt.Fprintln(w, line)
}

func fitTable(w io.Writer, p migrate.Plan) {
	if len(p.Observed.Fit) == 0 {
		fmt.Fprintln(w, "  nothing is lost that was looked for")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range p.Observed.Fit {
		count := Count(f.Count) + " objects"
		if f.Count < 0 {
			count = "all"
		}
		state := "NOT WAIVED: --waive " + f.Class + "=REASON"
		if reason, ok := p.Waives(f.Class); ok {
			state = "waived: " + Safe(reason)
		} else if f.Always {
			state = "always so"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.Class, count, f.Why, state)
		for i, s := range f.Samples {
			if i == 3 {
				fmt.Fprintf(t, "  \t\t…\n")
				break
			}
			fmt.Fprintf(t, "  \t\t%s\n", Safe(s))
		}
	}
	_ = t.Flush()
}

func formatLine(t migrate.TargetSpec) string {
	var props []string
	for _, k := range slices.Sorted(maps.Keys(t.Options)) {
		props = append(props, k+"="+t.Options[k])
	}
	if len(props) == 0 {
		return t.Format
	}
	return t.Format + " (" + strings.Join(props, ", ") + ")"
}

func deviceLine(d migrate.DeviceSpec) string {
	line := Safe(d.Path)
	switch {
	case d.File != "" && d.Bytes == 0:
		return fmt.Sprintf("image %s, to be made with %s", Safe(d.File), Bytes(d.Size))
	case d.File != "":
		line = "image " + Safe(d.File)
	}
	line += ", " + Bytes(d.Bytes)
	if len(d.IDs) > 0 {
		return line + ", " + Safe(d.IDs[0])
	}
	return line + ", without a stable id"
}

func wipeNote(t migrate.TargetSpec) string {
	if t.Wipe {
		return " (ITS CONTENT IS OVERWRITTEN)"
	}
	return ""
}

func forecastLine(f Forecast) string {
	if f == (Forecast{}) {
		return "not estimated"
	}
	line := fmt.Sprintf("%s on the spare, and a margin of %s", Bytes(f.Bytes), Bytes(f.MarginBytes))
	if f.Copy > 0 {
		line += fmt.Sprintf("; about %s to copy", Span(f.Copy))
	}
	if f.Verify > 0 {
		line += fmt.Sprintf(", %s to verify", Span(f.Verify))
	}
	if f.Pause > 0 {
		line += fmt.Sprintf("; pause about %s", Span(f.Pause))
	}
	return line
}

func serviceLine(s migrate.ServiceSpec) string {
	limits := fmt.Sprintf("stop within %s, start within %s", s.StopTimeout, s.StartTimeout)
	var line string
	switch {
	case s.Unit != "":
		line = "systemd unit " + Safe(s.Unit) + ", " + limits
	case s.Stop != "":
		line = fmt.Sprintf("stop: %s; start: %s; %s", Safe(s.Stop), Safe(s.Start), limits)
	case s.AcceptEROFS:
		return "none is stopped: writers get EROFS during the pause, as accepted"
	default:
		return "none given: no cutover without --unit, --stop with --start, or --accept-erofs"
	}
	if s.Health != "" {
		line += fmt.Sprintf("; healthy within %s: %s", s.HealthTimeout, Safe(s.Health))
	}
	return line + "; when it fails: " + s.OnFailure
}

func cutoverLine(c migrate.CutoverSpec) string {
	line := fmt.Sprintf("%s, pause of at most %s, undone after %s", c.Policy, c.PauseBudget, c.Deadline)
	switch {
	case c.Finalize:
		return line + "; FINALIZED AT ONCE: no way back"
	case c.Old == "keep":
		return line + "; the old volume stays as it was at the fence: no way back once the application wrote"
	}
	return line + "; the old volume is kept in step until finalize or rollback"
}

func copyLine(c migrate.CopySpec) string {
	line := c.Policy
	if c.Rate > 0 {
		line += ", at most " + Bytes(c.Rate) + "/s"
	}
	if c.Threads > 0 {
		line += fmt.Sprintf(", %d threads", c.Threads)
	}
	return line
}

func bootLine(p migrate.PersistSpec) string {
	line := "NOT IN FSTAB: after a reboot mount it by hand (mount -t fsmigrate ID DIR), or let it finalize at cutover"
	if p.Fstab != "" && p.Entry != "" {
		line = "the entry in " + Safe(p.Fstab) + " becomes fsmigrate's until the end, then native again"
	}
	if p.NoSuper {
		line += "; no supervisor: you resume it after a crash or a reboot"
	}
	return line
}
