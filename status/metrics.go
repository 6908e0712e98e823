package status

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// metric is one family of the metrics file.
type metric struct {
	name  string
	kind  string // gauge, counter
	label string // the label beside id; empty: none
	help  string
	value func(s migrate.Status, now time.Time) []labelled
}

type labelled struct {
	label string
	v     float64
}

func one(v float64) []labelled { return []labelled{{v: v}} }

// metrics is everything in the file, in its order. docs/metrics.md is made of it.
var metrics = []metric{
	{"fsmigrate_truth", "gauge", "side", "1 for the side that the newest switch record makes the truth, 0 for the other; both 0: not known", func(s migrate.Status, _ time.Time) []labelled {
		return []labelled{{"source", truth(s.Truth == migrate.Source)}, {"shadow", truth(s.Truth == migrate.Shadow)}}
	}},
	{"fsmigrate_phase", "gauge", "phase", "1, with the phase that the migration is in", func(s migrate.Status, _ time.Time) []labelled {
		return []labelled{{string(s.Phase), 1}}
	}},
	{"fsmigrate_phase_age_seconds", "gauge", "", "how long it has been in this phase", func(s migrate.Status, now time.Time) []labelled {
		return one(max(0, now.Sub(s.Since).Seconds()))
	}},
	{"fsmigrate_running", "gauge", "", "1 while the engine that writes this file runs; it writes 0 when it ends, and nothing more when it is killed: watch the file's age", func(s migrate.Status, _ time.Time) []labelled {
		return one(truth(s.Running))
	}},
	{"fsmigrate_paused", "gauge", "", "1 while it is paused, by an operator or by itself", func(s migrate.Status, _ time.Time) []labelled {
		return one(truth(s.Paused))
	}},
	{"fsmigrate_dirty_units", "gauge", "", "units that may differ between the two sides", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(s.DirtyUnits))
	}},
	{"fsmigrate_dirty_bytes", "gauge", "", "upper bound of the bytes behind them", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(s.DirtyBytes))
	}},
	{"fsmigrate_dirtied_bytes_per_second", "gauge", "", "rate at which the application dirties data, over 10 s", func(s migrate.Status, _ time.Time) []labelled {
		return one(s.DirtyRate)
	}},
	{"fsmigrate_copied_bytes_per_second", "gauge", "", "rate of copying, over 10 s", func(s migrate.Status, _ time.Time) []labelled {
		return one(s.CopyRate)
	}},
	{"fsmigrate_copied_bytes_total", "counter", "", "bytes copied by this engine since it started", nil},
	{"fsmigrate_unverified_objects", "gauge", "", "objects not proven equal", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(s.Unverified))
	}},
	{"fsmigrate_verified_objects", "gauge", "", "objects proven equal", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(s.Proof.Verified))
	}},
	{"fsmigrate_different_objects", "gauge", "", "objects that the last proof found different", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(s.Proof.Different))
	}},
	{"fsmigrate_predicted_pause_seconds", "gauge", "", "pause of a cutover that began now", func(s migrate.Status, _ time.Time) []labelled {
		return one(s.PredictedMS / 1000)
	}},
	{"fsmigrate_pause_budget_seconds", "gauge", "", "longest pause that the plan allows", func(s migrate.Status, _ time.Time) []labelled {
		return one(s.BudgetMS / 1000)
	}},
	{"fsmigrate_pause_seconds", "gauge", "", "pause of the cutover that was made; 0: none was", func(s migrate.Status, _ time.Time) []labelled {
		return one(s.Report.PauseMS / 1000)
	}},
	{"fsmigrate_way_back_open", "gauge", "", "1 while a rollback loses nothing", func(s migrate.Status, _ time.Time) []labelled {
		return one(truth(s.Truth == migrate.Shadow && s.WayBack.State == migrate.WayFull && !s.Phase.Ended()))
	}},
	{"fsmigrate_way_back_lag_seconds", "gauge", "", "after the cutover: age of the last moment at which the old volume was equal; absent before it and after the end", func(s migrate.Status, now time.Time) []labelled {
		if s.Truth != migrate.Shadow || s.Phase.Ended() || s.ConsistentAsOf.IsZero() {
			return nil
		}
		return one(max(0, now.Sub(s.ConsistentAsOf).Seconds()))
	}},
	{"fsmigrate_blockers", "gauge", "", "reasons against a cutover now", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(len(s.Blockers)))
	}},
	{"fsmigrate_attempts", "gauge", "", "cutovers begun", func(s migrate.Status, _ time.Time) []labelled {
		return one(float64(s.Attempts))
	}},
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Metrics is the file's content in Prometheus' text format. copied is what this
// engine has copied since it started.
func Metrics(s migrate.Status, copied int64, now time.Time) []byte {
	var b bytes.Buffer
	for _, m := range metrics {
		values := one(float64(copied))
		if m.value != nil {
			values = m.value(s, now)
		}
		if len(values) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
		for _, v := range values {
			labels := fmt.Sprintf("id=%q", s.ID)
			if m.label != "" {
				labels += fmt.Sprintf(",%s=%q", m.label, v.label)
			}
			fmt.Fprintf(&b, "%s{%s} %s\n", m.name, labels, number(v.v))
		}
	}
	return b.Bytes()
}

func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// WriteMetrics replaces the file in one step, readable by everybody: a collector
// never reads half of it. It is not synced, a power cut may lose it.
func WriteMetrics(path string, content []byte) error {
	dir, base := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return fmt.Errorf("write metrics %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write metrics %s: %w", path, err)
	}
	return nil
}

// MetricsDoc is docs/metrics.md.
func MetricsDoc() string {
	var b strings.Builder
	b.WriteString("<!-- generated by go test ./status -update; do not edit -->\n# Metrics\n\nTake a backup first; fsmigrate isn't one.\n\n" +
		"`fsmigrate run --metrics-textfile PATH` keeps these in a file for the textfile collector of\n" +
		"Prometheus' node_exporter, replaced atomically every few seconds and at each change of phase. Every\n" +
		"metric has the label `id`, the migration's name. Alert on the file's age: an engine that was killed\n" +
		"leaves the last one behind.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range metrics {
		labels := "id"
		if m.label != "" {
			labels += ", " + m.label
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, labels, m.help)
	}
	return b.String()
}
