package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Drift compares what was planned with what a planning made now finds, and
// returns one line for each field that differs: "field: planned X, found Y".
// Estimates (objects, bytes), the time of planning and the paths by which devices
// are known today are no drift; a device's identity and size are.
func Drift(planned, found Plan) []string {
	var d []string
	differ := func(field string, a, b any) {
		as, bs := fmt.Sprint(a), fmt.Sprint(b)
		if as != bs {
			d = append(d, fmt.Sprintf("%s: planned %s, found %s", field, orNone(as), orNone(bs)))
		}
	}
	differ("source.mount", planned.Source.Mount, found.Source.Mount)
	differ("source.format", planned.Source.Format, found.Source.Format)
	differ("source.uuid", planned.Source.UUID, found.Source.UUID)
	differ("source.label", planned.Source.Label, found.Source.Label)
	differ("source.options", planned.Source.Options, found.Source.Options)
	driftDevice(differ, "source.device", planned.Source.Device, found.Source.Device)
	differ("target.format", planned.Target.Format, found.Target.Format)
	differ("target.options", options(planned.Target.Options), options(found.Target.Options))
	driftDevice(differ, "target.spare", planned.Target.Spare, found.Target.Spare)
	differ("persist.fstab", planned.Persist.Fstab, found.Persist.Fstab)
	differ("persist.entry", planned.Persist.Entry, found.Persist.Entry)

	a, b := planned.Observed, found.Observed
	differ("observed.kernel", a.Kernel, b.Kernel)
	differ("observed.mount_options", a.MountOptions, b.MountOptions)
	differ("observed.propagation", a.Propagation, b.Propagation)
	differ("observed.features", set(a.Features), set(b.Features))
	differ("observed.tools", set(a.Tools), set(b.Tools))
	driftFit(differ, a.Fit, b.Fit)
	return d
}

func driftDevice(differ func(string, any, any), key string, a, b DeviceSpec) {
	differ(key+".file", a.File, b.File)
	if a.Bytes != 0 { // an image that was yet to be made had no size
		differ(key+".bytes", a.Bytes, b.Bytes)
	}
	// One common stable id is enough: a device gains and loses names (a new
	// multipath layer, a serial a newer kernel reports), it does not change them all.
	if len(a.IDs) > 0 && !slices.ContainsFunc(a.IDs, func(id string) bool { return slices.Contains(b.IDs, id) }) {
		differ(key+".ids", set(a.IDs), set(b.IDs))
	}
}

// driftFit compares which classes of loss there are. Their counts follow the
// tree, which is in use; a class that was not there when a person reviewed the plan is drift.
func driftFit(differ func(string, any, any), a, b []Fit) {
	classes := func(fit []Fit) (names []string) {
		for _, f := range fit {
			names = append(names, f.Class)
		}
		return names
	}
	for _, class := range classes(b) {
		if !slices.Contains(classes(a), class) {
			differ("observed.fit."+class, "", "losses of this class")
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func set(s []string) string {
	s = slices.Clone(s)
	slices.Sort(s)
	return strings.Join(s, " ")
}

func options(m map[string]string) string {
	var s []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s = append(s, k+"="+m[k])
	}
	return strings.Join(s, ",")
}
