package status

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Volume is a mounted volume as survey sees it.
type Volume struct {
	Mount    string    `json:"mount"`
	Device   string    `json:"device"`
	Format   string    `json:"format"`
	Version  string    `json:"version"`
	Bytes    int64     `json:"bytes"`
	Findings []Finding `json:"findings"`
	Error    string    `json:"error,omitempty"` // why it could not be looked at
}

// Finding is formats.Finding with names for JSON.
type Finding struct {
	Severity string `json:"severity"` // ends, hurts, note
	What     string `json:"what"`
	Why      string `json:"why"`
	Do       string `json:"do"`
}

// Findings gives a format's findings their JSON names.
func Findings(list []formats.Finding) []Finding {
	out := []Finding{}
	for _, f := range list {
		out = append(out, Finding{f.Severity, f.What, f.Why, f.Do})
	}
	return out
}

// NeedsWork reports whether something ends or hurts on one of the volumes.
func NeedsWork(volumes []Volume) bool {
	for _, v := range volumes {
		for _, f := range v.Findings {
			if f.Severity == formats.Ends || f.Severity == formats.Hurts {
				return true
			}
		}
	}
	return false
}

// SurveyPage writes the volumes with what was found on them.
func SurveyPage(w io.Writer, volumes []Volume) {
	if len(volumes) == 0 {
		fmt.Fprintln(w, "no volume of a known format is mounted there")
		return
	}
	for _, v := range volumes {
		fmt.Fprintf(w, "%s: %s %s, %s, %s\n", Safe(v.Mount), v.Format, v.Version, Bytes(v.Bytes), Safe(v.Device))
		if v.Error != "" {
			fmt.Fprintf(w, "  not looked at: %s\n", Safe(v.Error))
		}
		if len(v.Findings) == 0 && v.Error == "" {
			fmt.Fprintln(w, "  nothing ends or hurts")
		}
		for _, f := range v.Findings {
			fmt.Fprintf(w, "  %-5s  %s: %s\n", f.Severity, f.What, f.Why)
			if f.Do != "" {
				fmt.Fprintf(w, "         do: %s\n", f.Do)
			}
		}
	}
}

// Difference is one thing in which two trees differ.
type Difference struct {
	Path  string `json:"path"`
	Field string `json:"field"`
	A     string `json:"a"`
	B     string `json:"b"`
}

// Comparison is the outcome of comparing two trees.
type Comparison struct {
	Objects     int64         `json:"objects"`
	Bytes       int64         `json:"bytes"`
	Differences int64         `json:"differences"`
	Took        time.Duration `json:"took_ns"`
	Shown       []Difference  `json:"shown,omitempty"`
}

// ComparisonPage writes the differences and the sum.
func ComparisonPage(w io.Writer, c Comparison) {
	for _, d := range c.Shown {
		fmt.Fprintf(w, "%s: %s: A has %s, B has %s\n", Safe(d.Path), d.Field, Safe(dash(d.A)), Safe(dash(d.B)))
	}
	if n := c.Differences - int64(len(c.Shown)); n > 0 {
		fmt.Fprintf(w, "… and %s more\n", Count(n))
	}
	fmt.Fprintf(w, "%s objects, %s compared in %s: %s differences\n", Count(c.Objects), Bytes(c.Bytes), Span(c.Took), Count(c.Differences))
}

// Demo is what a demo showed.
type Demo struct {
	Report   migrate.Report `json:"report"`
	Rollback migrate.Report `json:"rollback"`
	Writes   int64          `json:"writes"`      // acknowledged by the application
	Lost     int64          `json:"writes_lost"` // of those, missing afterwards
	Pictures []string       `json:"pictures"`
}

// DemoPage writes the table of a demo.
func DemoPage(w io.Writer, d Demo) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r := d.Report
	fmt.Fprintf(t, "\nobjects\t%s\nbytes\t%s\npasses\t%d\npause\t%s\nverified\t%s\ndifferent\t%s\nwrites acknowledged\t%s\nwrites lost\t%s\n",
		Count(r.Objects), Bytes(r.Bytes), r.Passes, Span(millis(r.PauseMS)), Count(r.Verified), Count(r.Differences), Count(d.Writes), Count(d.Lost))
	for _, p := range d.Pictures {
		fmt.Fprintf(t, "picture\t%s\n", p)
	}
	for i, s := range r.Timeline {
		name := ""
		if i == 0 {
			name = "phases"
		}
		fmt.Fprintf(t, "%s\t%s %s %s\n", name, s.At.Local().Format("15:04:05.000"), s.Phase, Safe(s.Note))
	}
	_ = t.Flush()
}

// Format is a registered format for people and scripts.
type Format struct {
	Name       string     `json:"name"`
	Summary    string     `json:"summary"`
	Limits     Limits     `json:"limits"`
	Properties []Property `json:"properties"`
}

// Limits are formats.Limits as they are printed.
type Limits struct {
	NameBytes    int      `json:"name_bytes"`
	UIDBits      int      `json:"uid_bits"`
	GIDBits      int      `json:"gid_bits"`
	TimeMin      int64    `json:"time_min"`
	TimeMax      int64    `json:"time_max"`
	GranularityN int64    `json:"time_granularity_ns"`
	MaxFile      int64    `json:"max_file_bytes"`
	MaxLinks     uint64   `json:"max_links"`
	SymlinkBytes int      `json:"symlink_bytes"`
	XattrValue   int      `json:"xattr_value_bytes"`
	Records      []string `json:"records"`
}

// Property is one that --to FORMAT:k=v takes.
type Property struct {
	Name    string   `json:"name"`
	Values  []string `json:"values"`
	Default string   `json:"default"`
	Meaning string   `json:"meaning"`
}

// Formats describes the registered formats: those named, or all. missing is a name
// that is not registered.
func Formats(names []string) (list []Format, missing string) {
	want := formats.All()
	if len(names) > 0 {
		want = nil
		for _, n := range names {
			f, ok := formats.Lookup(n)
			if !ok {
				return nil, n
			}
			want = append(want, f)
		}
	}
	list = []Format{}
	for _, f := range want {
		d := f.Describe()
		l := d.Limits
		out := Format{Name: d.Name, Summary: d.Summary, Properties: []Property{}, Limits: Limits{
			l.NameBytes, l.UIDBits, l.GIDBits, l.TimeMin, l.TimeMax, int64(l.TimeGranularity), l.MaxFile, l.MaxLinks,
			l.SymlinkBytes, l.XattrValueBytes, l.Records.Names(),
		}}
		for _, p := range d.Properties {
			out.Properties = append(out.Properties, Property{p.Name, p.Allowed(), p.Default, p.Meaning})
		}
		list = append(list, out)
	}
	return list, ""
}

// FormatsPage writes the table of limits, and the properties where details are wanted.
func FormatsPage(w io.Writer, list []Format, details bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FORMAT\tNAME\tUID/GID\tTIMES\tMAX FILE\tLINKS\tSYMLINK\tXATTR VALUE\tRECORDS")
	for _, f := range list {
		l := f.Limits
		fmt.Fprintf(t, "%s\t%d B\t%d/%d\t%s to %s, %s\t%s\t%s\t%d B\t%s\t%s\n", f.Name, l.NameBytes, l.UIDBits, l.GIDBits,
			year(l.TimeMin), year(l.TimeMax), time.Duration(l.GranularityN), Bytes(l.MaxFile), links(l.MaxLinks),
			l.SymlinkBytes, Bytes(int64(l.XattrValue)), strings.Join(l.Records, " "))
	}
	_ = t.Flush()
	if !details {
		return
	}
	for _, f := range list {
		fmt.Fprintf(w, "\n%s: %s\n", f.Name, f.Summary)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, p := range f.Properties {
			fmt.Fprintf(t, "  %s\t%s\tdefault %s\t%s\n", p.Name, strings.Join(p.Values, "|"), dash(p.Default), p.Meaning)
		}
		_ = t.Flush()
	}
}

func year(seconds int64) string {
	if seconds <= -1<<53 || seconds >= 1<<53 {
		return "any"
	}
	return time.Unix(seconds, 0).UTC().Format("2006")
}

func links(n uint64) string {
	if n > math.MaxInt64 {
		return "any"
	}
	return Count(int64(n))
}
