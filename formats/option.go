package formats

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// Description is what `fsmigrate formats` prints of a format.
type Description struct {
	Name       string
	Summary    string // one line
	Properties []Property
	Limits     Limits // of a volume made without options
}

// Property is one option of a format. Values lists what it may be; where it is
// empty, any whole number from Min to Max may.
type Property struct {
	Name     string
	Values   []string
	Min, Max int64
	Default  string
	Meaning  string
}

// OptionError says that a property or its value is not known, and which are.
type OptionError struct {
	Format string
	Option string
	Value  string   // "" where the option itself is unknown
	Known  []string // options, or values
	Why    string   // where the value is known and cannot be had
}

func (e *OptionError) Error() string {
	switch {
	case e.Why != "":
		return fmt.Sprintf("%s: %s=%s: %s", e.Format, e.Option, e.Value, e.Why)
	case e.Value == "":
		return fmt.Sprintf("%s: unknown option %q (known: %s)", e.Format, e.Option, strings.Join(e.Known, ", "))
	default:
		return fmt.Sprintf("%s: %s=%q is not one of: %s", e.Format, e.Option, e.Value, strings.Join(e.Known, ", "))
	}
}

// Resolve checks opts against the properties and fills in the defaults.
func (d Description) Resolve(opts map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(d.Properties))
	for _, p := range d.Properties {
		out[p.Name] = p.Default
	}
	names := make([]string, 0, len(opts)) // sorted: the same error every time
	for name := range opts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		p, ok := d.property(name)
		if !ok {
			return nil, &OptionError{Format: d.Name, Option: name, Known: d.names()}
		}
		if !p.allows(opts[name]) {
			return nil, &OptionError{Format: d.Name, Option: name, Value: opts[name], Known: p.Allowed()}
		}
		out[name] = opts[name]
	}
	return out, nil
}

func (d Description) property(name string) (Property, bool) {
	for _, p := range d.Properties {
		if p.Name == name {
			return p, true
		}
	}
	return Property{}, false
}

func (d Description) names() []string {
	out := make([]string, len(d.Properties))
	for i, p := range d.Properties {
		out[i] = p.Name
	}
	sort.Strings(out)
	return out
}

func (p Property) allows(v string) bool {
	if len(p.Values) == 0 {
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n >= p.Min && n <= p.Max && strconv.FormatInt(n, 10) == v
	}
	for _, w := range p.Values {
		if v == w {
			return true
		}
	}
	return false
}

// Allowed lists the values for people.
func (p Property) Allowed() []string {
	if len(p.Values) > 0 {
		return p.Values
	}
	return []string{fmt.Sprintf("%d to %d", p.Min, p.Max)}
}
