package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Event is an event of the engine as it travels: a JSON line, a line of text, a
// message on the control socket. Only the fields of its kind are set.
type Event struct {
	Event    string            `json:"event"` // phase, check, progress, pass, verified, cutover, hook, blocked, warning, converges
	At       time.Time         `json:"at"`
	From     migrate.Phase     `json:"from,omitempty"`
	Phase    migrate.Phase     `json:"phase,omitempty"`
	Note     string            `json:"note,omitempty"`
	Check    *migrate.Check    `json:"check,omitempty"`
	Progress *Progress         `json:"progress,omitempty"`
	Pass     *Pass             `json:"pass,omitempty"`
	Proof    *migrate.Proof    `json:"proof,omitempty"`
	Step     string            `json:"step,omitempty"` // of a cutover, or a hook's name
	TookMS   float64           `json:"took_ms,omitempty"`
	Error    string            `json:"error,omitempty"`
	Blockers []migrate.Blocker `json:"blockers,omitempty"`
	What     string            `json:"what,omitempty"`
	Why      string            `json:"why,omitempty"`
	Hint     string            `json:"hint,omitempty"`
	Yes      *bool             `json:"converges,omitempty"`
	Dirtied  float64           `json:"dirty_bytes_per_second,omitempty"`
	Copied   float64           `json:"copied_bytes_per_second,omitempty"`
}

// Progress is migrate.Progress with names for JSON.
type Progress struct {
	Objects       int64   `json:"objects"`
	Bytes         int64   `json:"bytes"`
	TotalObjects  int64   `json:"total_objects,omitempty"`
	TotalBytes    int64   `json:"total_bytes,omitempty"`
	ObjectsPerSec float64 `json:"objects_per_second"`
	BytesPerSec   float64 `json:"bytes_per_second"`
	ETASeconds    float64 `json:"eta_seconds,omitempty"`
}

// Pass is what a pass did and left.
type Pass struct {
	Units       int64   `json:"units"`
	Bytes       int64   `json:"bytes"`
	TookMS      float64 `json:"took_ms"`
	Differs     int64   `json:"differs,omitempty"`
	DirtyUnits  int64   `json:"dirty_units"`
	DirtyBytes  int64   `json:"dirty_bytes"`
	PredictedMS float64 `json:"predicted_pause_ms"`
}

// Listen makes Event values of the engine's events, for every sink. A sink is called
// on the engine's goroutine and must not block.
func Listen(sinks ...func(Event)) migrate.Events {
	send := func(e Event) {
		e.At = time.Now()
		for _, sink := range sinks {
			sink(e)
		}
	}
	failure := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	return migrate.Events{
		Phase: func(from, to migrate.Phase, note string) {
			send(Event{Event: "phase", From: from, Phase: to, Note: note})
		},
		Checked: func(c migrate.Check) { send(Event{Event: "check", Check: &c}) },
		Progress: func(p migrate.Progress) {
			named := progressOf(p)
			send(Event{Event: "progress", Phase: p.Phase, Progress: &named})
		},
		PassDone: func(r migrate.PassResult, b migrate.Backlog) {
			send(Event{Event: "pass", Pass: &Pass{
				r.Units, r.Bytes, inMillis(r.Took), r.Differs, b.Units, b.Bytes, inMillis(b.PredictedPause),
			}})
		},
		Verified: func(p migrate.Proof) { send(Event{Event: "verified", Proof: &p, TookMS: inMillis(p.Took)}) },
		Cutover: func(step string, took time.Duration, err error) {
			send(Event{Event: "cutover", Step: step, TookMS: inMillis(took), Error: failure(err)})
		},
		Hook: func(name string, took time.Duration, err error) {
			send(Event{Event: "hook", Step: name, TookMS: inMillis(took), Error: failure(err)})
		},
		Blocked: func(b []migrate.Blocker) { send(Event{Event: "blocked", Blockers: b}) },
		Warning: func(what, why, hint string) { send(Event{Event: "warning", What: what, Why: why, Hint: hint}) },
		Converges: func(yes bool, dirtied, copied float64) {
			send(Event{Event: "converges", Yes: &yes, Dirtied: dirtied, Copied: copied})
		},
	}
}

func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Line is e in one line of text, or in none: checks that are well, passes that did nothing.
func Line(e Event) string {
	switch e.Event {
	case "phase":
		return strings.TrimSuffix(fmt.Sprintf("%s: %s", e.Phase, Safe(e.Note)), ": ")
	case "check":
		if e.Check.Verdict == migrate.OK {
			return ""
		}
		return fmt.Sprintf("%s: %s: found %s, need %s", e.Check.Verdict, e.Check.Name, Safe(e.Check.Found), Safe(e.Check.Need))
	case "progress":
		return fmt.Sprintf("%s: %s", e.Phase, progressText(*e.Progress))
	case "pass":
		if e.Pass.Units == 0 && e.Pass.DirtyUnits == 0 {
			return ""
		}
		return fmt.Sprintf("pass: %s units, %s in %s; %s units remain, predicted pause %s", Count(e.Pass.Units), Bytes(e.Pass.Bytes),
			Span(millis(e.Pass.TookMS)), Count(e.Pass.DirtyUnits), Span(millis(e.Pass.PredictedMS)))
	case "verified":
		return "proof: " + ProofLine(*e.Proof)
	case "cutover", "hook":
		line := fmt.Sprintf("%s: %s %s", e.Event, e.Step, Span(millis(e.TookMS)))
		if e.Error != "" {
			line += " FAILED: " + Safe(e.Error)
		}
		return line
	case "blocked":
		if len(e.Blockers) == 0 {
			return "blocked: nothing stands against a cutover any more"
		}
		b := e.Blockers[0]
		return fmt.Sprintf("blocked: %d reasons against a cutover, the first: %s: %s (%s)", len(e.Blockers), Safe(b.Object), b.Why, b.Class)
	case "warning":
		line := "warning: " + Safe(e.What)
		if e.Why != "" {
			line += ": " + Safe(e.Why)
		}
		if e.Hint != "" {
			line += " (hint: " + e.Hint + ")"
		}
		return line
	case "converges":
		if *e.Yes {
			return "converges again"
		}
		return fmt.Sprintf("this will not converge: %s/s dirtied, %s/s copied", Bytes(int64(e.Dirtied)), Bytes(int64(e.Copied)))
	}
	return ""
}

func progressOf(p migrate.Progress) Progress {
	return Progress{p.Objects, p.Bytes, p.TotalObjects, p.TotalBytes, p.ObjectsPerSec, p.BytesPerSec, p.ETA.Seconds()}
}

func progressText(p Progress) string {
	line := Count(p.Objects)
	if p.TotalObjects > 0 {
		line += "/" + Count(p.TotalObjects)
	}
	line += " objects"
	if p.Bytes > 0 || p.TotalBytes > 0 {
		line += ", " + Bytes(p.Bytes)
		if p.TotalBytes > 0 {
			line += "/" + Bytes(p.TotalBytes)
		}
		line += ", " + Bytes(int64(p.BytesPerSec)) + "/s"
	}
	line += fmt.Sprintf(", %.0f objects/s", p.ObjectsPerSec)
	if p.ETASeconds > 0 {
		line += ", about " + Span(time.Duration(p.ETASeconds*float64(time.Second)).Round(time.Second)) + " left"
	}
	return line
}
