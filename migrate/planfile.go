package migrate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v3"
)

// Defaults of a plan. WithDefaults is the only place that applies them.
const (
	defaultCategory      = "5: update affects data on the disk"
	defaultTracker       = "watch"
	defaultPolicy        = "manual"
	defaultCopyPolicy    = "gentle"
	defaultOld           = "follow"
	defaultOnFailure     = "rollback"
	defaultPauseBudget   = Duration(2 * time.Second)
	defaultDeadline      = Duration(30 * time.Second) // or 5 × the pause budget, if that is longer
	defaultStopTimeout   = Duration(90 * time.Second)
	defaultStartTimeout  = Duration(90 * time.Second)
	defaultHealthTimeout = Duration(60 * time.Second)
)

// WithDefaults returns p with every default filled in.
func (p Plan) WithDefaults() Plan {
	def(&p.Version, PlanVersion)
	def(&p.Category, defaultCategory)
	def(&p.Tracker, defaultTracker)
	def(&p.Cutover.Policy, defaultPolicy)
	def(&p.Cutover.PauseBudget, defaultPauseBudget)
	def(&p.Cutover.Deadline, max(defaultDeadline, 5*p.Cutover.PauseBudget))
	def(&p.Cutover.Old, defaultOld)
	def(&p.Copy.Policy, defaultCopyPolicy)
	def(&p.Service.OnFailure, defaultOnFailure)
	def(&p.Service.StopTimeout, defaultStopTimeout)
	def(&p.Service.StartTimeout, defaultStartTimeout)
	def(&p.Service.HealthTimeout, defaultHealthTimeout)
	return p
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// ParsePlan reads a plan file: one YAML document, unknown keys refused,
// defaults filled in, valid.
func ParsePlan(data []byte) (Plan, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	var p Plan
	if err := d.Decode(&p); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return Plan{}, planProblem(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Plan{}, planProblem(errors.New("more than one YAML document"))
	}
	if p.Version == 0 {
		return Plan{}, planProblem(keyError("version", p.Version, fmt.Sprint(PlanVersion)))
	}
	p = p.WithDefaults().normal()
	if err := p.Validate(); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// Marshal writes the plan file that ParsePlan reads.
func (p Plan) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(p.normal()); err != nil {
		return nil, fmt.Errorf("marshal plan %s: %w", p.ID, err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("marshal plan %s: %w", p.ID, err)
	}
	return b.Bytes(), nil
}

// Digest names the plan's content: the SHA-256, in hex, of its file form with
// every default filled in. Layout and comments of the file do not count.
func (p Plan) Digest() string {
	data, err := p.WithDefaults().Marshal()
	if err != nil { // no value of these types fails to marshal
		data = []byte(err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// normal makes plans that mean the same the same: no empty slices and maps, UTC.
func (p Plan) normal() Plan {
	nilIfEmpty(&p.Source.Device.IDs)
	nilIfEmpty(&p.Target.Spare.IDs)
	nilIfEmpty(&p.Waive)
	nilIfEmpty(&p.Observed.Features)
	nilIfEmpty(&p.Observed.Tools)
	nilIfEmpty(&p.Observed.Fit)
	if len(p.Target.Options) == 0 {
		p.Target.Options = nil
	}
	if len(p.Observed.Fit) > 0 {
		fit := make([]Fit, len(p.Observed.Fit))
		copy(fit, p.Observed.Fit)
		for i := range fit {
			nilIfEmpty(&fit[i].Samples)
		}
		p.Observed.Fit = fit
	}
	p.Observed.At = p.Observed.At.UTC()
	if p.Observed.At.IsZero() {
		p.Observed.At = time.Time{}
	}
	return p
}

func nilIfEmpty[T any](s *[]T) {
	if len(*s) == 0 {
		*s = nil
	}
}

// MarshalText writes d as "2s".
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads "2s", "1m30s", "250ms".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; allowed: a number with a unit, as 2s or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

func planProblem(err error) *Problem {
	return &Problem{Kind: Usage, What: "the plan is not valid", Why: err, Hint: "docs/plan.md describes every key"}
}
