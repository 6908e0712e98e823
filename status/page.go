package status

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Page writes the page of one migration, as of now. It is for someone who was woken
// up: what is so, is it safe, what can be done.
func Page(w io.Writer, s migrate.Status, now time.Time) {
	fmt.Fprintf(w, "%s: %s, %s to %s\n", s.ID, Safe(s.Source), s.From, s.To)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("phase", "%s since %s (%s)%s", s.Phase, when(s.Since), Span(now.Sub(s.Since)), pausedNote(s))
	if s.Why != "" && !s.Paused {
		row("", "because: %s", Safe(s.Why))
	}
	row("engine", "%s", engineNote(s))
	row("truth", "%s", truthNote(s))
	row("proof", "%s", ProofLine(s.Proof))
	if s.Progress != nil {
		row("done", "%s", progressText(progressOf(*s.Progress)))
	}
	if live(s) {
		row("dirty", "%s", dirtyLine(s))
		row("pause", "%s", pauseLine(s))
	} else if s.Report.PauseMS > 0 {
		row("pause", "was %s", Span(millis(s.Report.PauseMS)))
	}
	if s.Service != "" {
		row("service", "%s (as last recorded)", s.Service)
	}
	for i, b := range s.Blockers {
		if i == 0 {
			row("blocked", "%d reasons against a cutover now", len(s.Blockers))
		}
		if i == 10 {
			row("", "… and %d more", len(s.Blockers)-i)
			break
		}
		row("", "%s: %s (%s)", Safe(b.Object), b.Why, b.Class)
		if b.Hint != "" {
			row("", "  hint: %s", b.Hint)
		}
	}
	row("reboot now", "%s", s.Reboot)
	row("way back", "%s", wayBackLine(s))
	if !s.NotBefore.IsZero() && now.Before(s.NotBefore) {
		row("next try", "not before %s", when(s.NotBefore))
	}
	row("next", "%s", nextLine(s))
	row("undo", "%s", undoLine(s))
	_ = t.Flush() // the caller's writer is a buffer
}

// live reports whether numbers of the engine mean something now.
func live(s migrate.Status) bool { return s.Running && !s.Phase.Ended() }

func pausedNote(s migrate.Status) string {
	if !s.Paused {
		return ""
	}
	if s.Why == "" {
		return ", PAUSED"
	}
	return ", PAUSED: " + Safe(s.Why)
}

func engineNote(s migrate.Status) string {
	switch {
	case s.Phase.Ended():
		return "none needed, the migration has ended"
	case s.Running:
		return "running"
	case s.Silent != "":
		return "DOES NOT ANSWER: " + s.Silent + " is stopped, or stuck in a system call; what follows is what it last recorded"
	}
	if s.Phase == migrate.Cutover || s.Phase == migrate.Rollback {
		return "NOT RUNNING, AND THE CUTOVER IS NOT SETTLED: its watchdog may do it, and this does: fsmigrate resume " + s.ID
	}
	return "NOT RUNNING: changes are not followed now, nothing is lost; continue with: fsmigrate resume " + s.ID
}

func truthNote(s migrate.Status) string {
	if s.Truth == "" {
		return "NOT KNOWN: the switch record could not be read"
	}
	line := fmt.Sprintf("%s, %s", s.Truth, Safe(s.Device))
	if len(s.DeviceIDs) > 0 {
		line += " (" + Safe(s.DeviceIDs[0]) + ")"
	}
	return fmt.Sprintf("%s, by record %d of the %s", line, s.TruthSeq, s.TruthBy)
}

// ProofLine is a proof in words: n/n verified, different, waived.
func ProofLine(p migrate.Proof) string {
	if p.Kind == "" && p.Objects == 0 {
		return "none yet"
	}
	line := fmt.Sprintf("%s/%s verified, %s different, %s waived", Count(p.Verified), Count(p.Objects), Count(p.Different), Count(p.Waived))
	if p.Kind != "" {
		line += " (" + p.Kind + ")"
	}
	for i, e := range p.Examples {
		if i == 3 {
			break
		}
		line += "; " + Safe(e)
	}
	return line
}

func dirtyLine(s migrate.Status) string {
	line := fmt.Sprintf("%s units, at most %s, %s", Count(s.DirtyUnits), Bytes(s.DirtyBytes), s.Trend)
	if s.DirtyRate > 0 || s.CopyRate > 0 {
		line += fmt.Sprintf(" (%s/s dirtied, %s/s copied)", Bytes(int64(s.DirtyRate)), Bytes(int64(s.CopyRate)))
	}
	if !s.Converging {
		line += ": THIS WILL NOT CONVERGE at these rates"
	}
	if s.Converging && s.ETASeconds > 0 && !math.IsInf(s.ETASeconds, 0) {
		line += ", in step in about " + Span(time.Duration(s.ETASeconds*float64(time.Second)).Round(time.Second))
	}
	return line
}

func pauseLine(s migrate.Status) string {
	if s.Phase == migrate.Reverse || s.Report.PauseMS > 0 {
		return fmt.Sprintf("was %s; back now: predicted %s of %s allowed", Span(millis(s.Report.PauseMS)), Span(millis(s.PredictedMS)), Span(millis(s.BudgetMS)))
	}
	verdict := "within the budget"
	if s.PredictedMS > s.BudgetMS {
		verdict = "OVER THE BUDGET"
	}
	return fmt.Sprintf("predicted %s of %s allowed, %s", Span(millis(s.PredictedMS)), Span(millis(s.BudgetMS)), verdict)
}

func wayBackLine(s migrate.Status) string {
	if s.Truth == migrate.Source && !s.Phase.Ended() {
		return "the source is the truth: nothing to go back from"
	}
	line := s.WayBack.State
	if !s.Running && !s.Phase.Ended() {
		line += " as last recorded, and behind by what was written since; it catches up when resumed"
	}
	if !s.WayBack.Since.IsZero() {
		line += " since " + when(s.WayBack.Since)
	}
	if s.WayBack.Why != "" {
		line += ", because " + Safe(s.WayBack.Why)
	}
	if !s.ConsistentAsOf.IsZero() {
		line += "; old consistent as of " + when(s.ConsistentAsOf)
	}
	return dash(line)
}

func nextLine(s migrate.Status) string {
	if s.Silent != "" {
		return "look at " + s.Silent + " and the kernel log; once it is gone: fsmigrate resume " + s.ID
	}
	if !s.Running && !s.Phase.Ended() {
		return "fsmigrate resume " + s.ID
	}
	if s.Phase == migrate.Hold && !s.Paused {
		switch {
		case len(s.Blockers) > 0:
			return "mend what blocks, then: " + s.Next
		case s.PredictedMS > s.BudgetMS:
			return "when less is written, so that the pause is within its budget: " + s.Next
		}
	}
	return dash(s.Next)
}

func undoLine(s migrate.Status) string {
	if s.Silent != "" && s.Undo != "" {
		return "fsmigrate resume " + s.ID + ", then " + s.Undo
	}
	return dash(s.Undo)
}

func dash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	return s
}

// EndLine is a run's outcome in one line.
func EndLine(r migrate.Report) string {
	line := fmt.Sprintf("%s: %s, the %s is the truth; %s", r.ID, r.Phase, r.Truth, ProofLine(r.Proof))
	if r.PauseMS > 0 {
		line += fmt.Sprintf("; the pause was %s", Span(millis(r.PauseMS)))
	}
	return line
}

// Table writes a line for each migration.
func Table(w io.Writer, list []migrate.Status, now time.Time) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no migrations")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSOURCE\tCHANGE\tPHASE\tFOR\tTRUTH\tENGINE\tNEXT")
	for _, s := range list {
		engine := "not running"
		switch {
		case s.Silent != "":
			engine = "silent"
		case s.Running:
			engine = "running"
		case s.Phase.Ended():
			engine = "-"
		}
		phase := string(s.Phase)
		if s.Paused {
			phase += " (paused)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s to %s\t%s\t%s\t%s\t%s\t%s\n", s.ID, Safe(s.Source), s.From, s.To,
			phase, Span(now.Sub(s.Since)), dash(string(s.Truth)), engine, nextLine(s))
	}
	_ = t.Flush()
}
