package migrate

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

var (
	idForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	formatForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)
	optionForm = regexp.MustCompile(`^[a-z0-9_^-]{1,32}$`)
	classForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
)

// ValidID reports whether id can name a migration.
func ValidID(id string) bool { return idForm.MatchString(id) }

// keyError names the key, its value, and what is allowed.
func keyError(key string, value any, allowed string) error {
	if s, ok := value.(string); ok {
		value = fmt.Sprintf("%q", s)
	}
	return fmt.Errorf("%s: %v is not allowed; allowed: %s", key, value, allowed)
}

// Validate checks the plan by itself, all keys in one go; what it asks of the
// machine is preflight's. It expects defaults to be filled in.
func (p Plan) Validate() error {
	var errs []error
	need := func(ok bool, key string, value any, allowed string) {
		if !ok {
			errs = append(errs, keyError(key, value, allowed))
		}
	}
	oneOf := func(key, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		need(false, key, value, strings.Join(allowed, ", "))
	}
	need(p.Version == PlanVersion, "version", p.Version, fmt.Sprint(PlanVersion))
	need(ValidID(p.ID), "id", p.ID, "1 to 32 of a-z, 0-9 and -, not beginning with -")
	need(p.Category != "", "category", p.Category, "a category of the taxonomy, as \""+defaultCategory+"\"")
	need(absolute(p.Source.Mount), "source.mount", p.Source.Mount, "an absolute, clean path")
	need(formatForm.MatchString(p.Source.Format), "source.format", p.Source.Format, "a format's name, see fsmigrate formats")
	need(formatForm.MatchString(p.Target.Format), "target.format", p.Target.Format, "a format's name, see fsmigrate formats")
	for k := range p.Target.Options {
		need(optionForm.MatchString(k), "target.options", k, "property names, see fsmigrate formats")
	}
	errs = append(errs, p.Source.Device.validate("source.device")...)
	errs = append(errs, p.Target.Spare.validate("target.spare")...)
	oneOf("tracker", p.Tracker, "watch")
	errs = append(errs, p.Service.validate()...)
	if _, err := ParsePolicy(p.Cutover.Policy); err != nil {
		errs = append(errs, fmt.Errorf("cutover.policy: %w", err))
	}
	need(p.Cutover.PauseBudget > 0, "cutover.pause_budget", p.Cutover.PauseBudget, "more than 0s")
	need(p.Cutover.Deadline >= p.Cutover.PauseBudget, "cutover.deadline", p.Cutover.Deadline, "at least the pause budget, "+p.Cutover.PauseBudget.String())
	oneOf("cutover.old", p.Cutover.Old, "follow", "keep")
	oneOf("copy.policy", p.Copy.Policy, "gentle", "asap")
	need(p.Copy.Rate >= 0, "copy.rate", p.Copy.Rate, "bytes per second, 0 for no cap")
	need(p.Copy.Threads >= 0 && p.Copy.Threads <= 256, "copy.threads", p.Copy.Threads, "0 (automatic) to 256")
	need(p.Persist.Fstab == "" || absolute(p.Persist.Fstab), "persist.fstab", p.Persist.Fstab, "an absolute path, or nothing")
	need(!strings.ContainsAny(p.Persist.Entry, "\n\x00"), "persist.entry", p.Persist.Entry, "one line of fstab")
	seen := map[string]bool{}
	for i, w := range p.Waive {
		key := fmt.Sprintf("waive[%d]", i)
		need(classForm.MatchString(w.Class), key+".class", w.Class, "the name of a check or of a class of loss")
		need(strings.TrimSpace(w.Reason) != "", key+".reason", w.Reason, "why it is acceptable, in words")
		need(!seen[w.Class], key+".class", w.Class, "each class once")
		seen[w.Class] = true
	}
	if len(errs) > 0 {
		return planProblem(errors.Join(errs...))
	}
	return nil
}

func (d DeviceSpec) validate(key string) (errs []error) {
	if d.Path == "" && d.File == "" {
		errs = append(errs, keyError(key+".path", d.Path, "a block device (or, for a spare, file: an image)"))
	}
	if d.Path != "" && !absolute(d.Path) {
		errs = append(errs, keyError(key+".path", d.Path, "an absolute, clean path"))
	}
	if d.File != "" && !absolute(d.File) {
		errs = append(errs, keyError(key+".file", d.File, "an absolute, clean path"))
	}
	if d.Bytes < 0 || d.Bytes == 0 && d.Size == 0 {
		errs = append(errs, keyError(key+".bytes", d.Bytes, "the device's size in bytes"))
	}
	if d.Size < 0 || d.Size > 0 && d.File == "" {
		errs = append(errs, keyError(key+".file_size", d.Size, "a size in bytes, only with "+key+".file"))
	}
	for i, id := range d.IDs {
		if kind, rest, ok := strings.Cut(id, ":"); !ok || kind == "" || rest == "" {
			errs = append(errs, keyError(fmt.Sprintf("%s.ids[%d]", key, i), id, "KIND:VALUE, as wwn:…, partuuid:…, lv:…, loopfile:…"))
		}
	}
	return errs
}

func (s ServiceSpec) validate() (errs []error) {
	switch hooks := s.Stop != "" || s.Start != ""; {
	case s.Unit != "" && (hooks || s.AcceptEROFS):
		errs = append(errs, keyError("service.unit", s.Unit, "one of unit, stop with start, accept_erofs"))
	case hooks && s.AcceptEROFS:
		errs = append(errs, keyError("service.accept_erofs", s.AcceptEROFS, "one of unit, stop with start, accept_erofs"))
	case s.Stop != "" && s.Start == "":
		errs = append(errs, keyError("service.start", s.Start, "a command, because there is a service.stop"))
	case s.Start != "" && s.Stop == "":
		errs = append(errs, keyError("service.stop", s.Stop, "a command, because there is a service.start"))
	case strings.HasPrefix(s.Unit, "-") || strings.ContainsAny(s.Unit, "/ \t\n\x00"):
		errs = append(errs, keyError("service.unit", s.Unit, "the name of a systemd unit"))
	}
	if s.OnFailure != "rollback" && s.OnFailure != "hold" {
		errs = append(errs, keyError("service.on_failure", s.OnFailure, "rollback, hold"))
	}
	for _, t := range []struct {
		key string
		d   Duration
	}{{"stop_timeout", s.StopTimeout}, {"start_timeout", s.StartTimeout}, {"health_timeout", s.HealthTimeout}} {
		if t.d <= 0 {
			errs = append(errs, keyError("service."+t.key, t.d, "more than 0s"))
		}
	}
	return errs
}

func absolute(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.Contains(p, "\x00")
}
