package status

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Display shows events to whoever watches, until Close. A write that fails ends the
// showing, never the migration: the terminal may be gone for hours.
type Display interface {
	Event(Event)
	// Say is a line of our own among the events.
	Say(line string)
	Close()
}

// every is how often lines of text tell progress.
const every = 10 * time.Second

// NewDisplay picks the form: JSON lines, a bar on a terminal, lines elsewhere.
func NewDisplay(w io.Writer, asJSON, terminal bool) Display {
	switch {
	case asJSON:
		return &jsonLines{enc: json.NewEncoder(w)}
	case terminal:
		return newBars(w)
	}
	return &textLines{w: w}
}

type jsonLines struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (j *jsonLines) Event(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.enc.Encode(e)
}

func (j *jsonLines) Say(line string) { j.Event(Event{Event: "note", At: time.Now(), Note: line}) }
func (j *jsonLines) Close()          {}

type textLines struct {
	mu   sync.Mutex
	w    io.Writer
	last time.Time // of a progress line
}

func (t *textLines) Event(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Event == "progress" {
		if e.At.Sub(t.last) < every {
			return
		}
		t.last = e.At
	}
	if line := Line(e); line != "" {
		fmt.Fprintf(t.w, "%s %s\n", e.At.Local().Format("15:04:05"), line)
	}
}

func (t *textLines) Say(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.w, line)
}

func (t *textLines) Close() {}

// bars keeps one line at the bottom of the terminal: the phase, how far, how fast.
type bars struct {
	p     *mpb.Progress
	mu    sync.Mutex
	bar   *mpb.Bar
	phase migrate.Phase
	text  string
}

func newBars(w io.Writer) *bars {
	return &bars{p: mpb.New(mpb.WithOutput(w), mpb.WithWidth(24), mpb.WithAutoRefresh(), mpb.WithRefreshRate(200*time.Millisecond))}
}

func (b *bars) Event(e Event) {
	switch e.Event {
	case "progress":
		b.progress(e.Phase, *e.Progress)
		return
	case "pass":
		b.set(fmt.Sprintf("%s units remain, predicted pause %s", Count(e.Pass.DirtyUnits), Span(millis(e.Pass.PredictedMS))))
		return
	case "phase":
		b.end()
	}
	if line := Line(e); line != "" {
		b.Say(e.At.Local().Format("15:04:05") + " " + line)
	}
}

func (b *bars) Say(line string) { _, _ = b.p.Write([]byte(line + "\n")) }

func (b *bars) set(text string) {
	b.mu.Lock()
	b.text = text
	b.mu.Unlock()
}

func (b *bars) label(decor.Statistics) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text
}

func (b *bars) progress(phase migrate.Phase, p Progress) {
	total, current := p.TotalBytes, p.Bytes
	if total == 0 {
		total, current = p.TotalObjects, p.Objects
	}
	b.set(progressText(p))
	if b.bar != nil && b.phase != phase {
		b.end()
	}
	if b.bar == nil {
		b.phase = phase
		b.bar = b.p.AddBar(0, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(string(phase), decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(b.label)))
	}
	// A total that is reached would complete the bar: estimates are passed by.
	b.bar.SetTotal(max(total, current+1), false)
	b.bar.SetCurrent(current)
}

func (b *bars) end() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.bar = nil
	}
}

func (b *bars) Close() {
	b.end()
	b.p.Wait()
}
