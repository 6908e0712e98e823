package migrate

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const planText = `version: 1
id: data
category: "5: update affects data on the disk"
source:
  mount: /data
  device: {path: /dev/vdb, ids: ["wwn:1"], bytes: 1073741824}
  format: ext4
  uuid: u1
target:
  format: xfs
  options: {bigtime: "1"}
  spare: {path: /dev/vdc, bytes: 1073741824}
tracker: watch
service: {unit: app.service, stop_timeout: 20s}
cutover: {policy: "window:22:00-04:00", pause_budget: 10s, deadline: 1m}
copy: {policy: asap, rate: 1000000}
persist: {fstab: /etc/fstab, entry: "UUID=u1 /data ext4 defaults 0 2"}
waive:
  - {class: spare-image, reason: it is a test}
observed:
  kernel: 6.18.0
  mount_options: rw,nosuid
  propagation: shared
  objects: 12
  bytes: 3000
  fit: [{class: identity, count: -1, why: numbers change, always: true}]
  at: 2026-03-01T12:00:00+01:00
`

func TestPlanRoundTrip(t *testing.T) {
	p, err := ParsePlan([]byte(planText))
	if err != nil {
		t.Fatal(err)
	}
	if p.Cutover.PauseBudget != Duration(10*time.Second) || p.Service.StopTimeout != Duration(20*time.Second) || p.Service.StartTimeout != Duration(90*time.Second) {
		t.Errorf("%+v", p)
	}
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "pause_budget: 10s\n") {
		t.Errorf("durations are not readable:\n%s", data)
	}
	q, err := ParsePlan(data)
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	if !reflect.DeepEqual(p, q) || p.Digest() != q.Digest() {
		t.Errorf("%+v\nbecame %+v", p, q)
	}
	q.Copy.Rate++
	if p.Digest() == q.Digest() {
		t.Error("the digest misses copy.rate")
	}
}

func TestPlanDefaults(t *testing.T) {
	var p Plan
	p.Cutover.PauseBudget = Duration(8 * time.Second)
	if d := p.WithDefaults(); d.Cutover.Deadline != Duration(40*time.Second) || d.Cutover.Policy != "manual" || d.Cutover.Old != "follow" || d.Service.OnFailure != "rollback" || d.Copy.Policy != "gentle" {
		t.Errorf("%+v", d)
	}
	if d := (Plan{}).WithDefaults(); d.Cutover.PauseBudget != Duration(2*time.Second) || d.Cutover.Deadline != Duration(30*time.Second) || d.Service.HealthTimeout != Duration(time.Minute) {
		t.Errorf("%+v", d)
	}
}

// TestPlanErrors: each names the key, the value, and what is allowed.
func TestPlanErrors(t *testing.T) {
	for _, tc := range []struct{ from, to, want string }{
		{"version: 1", "version: 2", "version: 2 is not allowed; allowed: 1"},
		{"version: 1\n", "", "version: 0 is not allowed"},
		{"id: data", "id: ../x", `id: "../x" is not allowed; allowed: 1 to 32`},
		{"mount: /data", "mount: data/", `source.mount: "data/" is not allowed; allowed: an absolute`},
		{"format: xfs", "format: XFS 5", `target.format: "XFS 5"`},
		{"tracker: watch", "tracker: guess", `tracker: "guess" is not allowed; allowed: watch`},
		{"unit: app.service", "unit: app.service, stop: x", `service.unit: "app.service"`},
		{"unit: app.service", "stop: x", `service.start: "" is not allowed; allowed: a command`},
		{"unit: app.service", "on_failure: cry", `service.on_failure: "cry" is not allowed; allowed: rollback, hold`},
		{"unit: app.service", "unit: -x", `service.unit: "-x"`},
		{"window:22:00-04:00", "window:22:00", `cutover.policy: "window:22:00" lacks an end; allowed: manual, auto, window:HH:MM-HH:MM`},
		{"window:22:00-04:00", "window:22:00-25:00", `"25:00" is not a time of day`},
		{"pause_budget: 10s", "pause_budget: 10", `"10" is not a duration; allowed`},
		{"pause_budget: 10s", "pause_budget: -1s", "cutover.pause_budget: -1s is not allowed"},
		{"deadline: 1m", "deadline: 1s", "cutover.deadline: 1s is not allowed; allowed: at least the pause budget, 10s"},
		{"policy: asap", "policy: fast", `copy.policy: "fast" is not allowed; allowed: gentle, asap`},
		{"rate: 1000000", "rate: -1", "copy.rate: -1"},
		{"reason: it is a test", "reason: ' '", "waive[0].reason"},
		{"ids: [\"wwn:1\"]", "ids: [wwn]", `source.device.ids[0]: "wwn"`},
		{"tracker: watch", "trackers: watch", "field trackers not found"},
		{"copy: {", "copy: {polcy: x, ", "field polcy not found"},
	} {
		text := strings.Replace(planText, tc.from, tc.to, 1)
		if text == planText {
			t.Fatalf("%q is not in the plan", tc.from)
		}
		_, err := ParsePlan([]byte(text))
		if err == nil || KindOf(err) != Usage || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v\nwant %s", tc.to, err, tc.want)
		}
	}
	for _, text := range []string{"", planText + "---\n" + planText, "[]", "version: 1"} {
		if _, err := ParsePlan([]byte(text)); err == nil {
			t.Errorf("accepted %.20q", text)
		}
	}
}

func TestDrift(t *testing.T) {
	p, err := ParsePlan([]byte(planText))
	if err != nil {
		t.Fatal(err)
	}
	q := p
	q.Observed.Objects, q.Observed.Bytes, q.Observed.At = 99, 99, time.Time{}
	q.Source.Device.Path = "/dev/vdz"
	q.Source.Device.IDs = []string{"serial:7", "wwn:1"}
	if d := Drift(p, q); len(d) != 0 {
		t.Errorf("estimates and names are no drift: %v", d)
	}
	q.Observed.Kernel = "6.19.0"
	q.Source.UUID = ""
	q.Source.Device.IDs = []string{"wwn:2"}
	q.Target.Spare.Bytes = 5
	q.Target.Options = nil
	q.Observed.Fit = append(q.Observed.Fit, Fit{Class: "xattr-size", Count: 3})
	want := []string{
		"source.uuid: planned u1, found nothing",
		"source.device.ids: planned wwn:1, found wwn:2",
		"target.options: planned bigtime=1, found nothing",
		"target.spare.bytes: planned 1073741824, found 5",
		"observed.kernel: planned 6.18.0, found 6.19.0",
		"observed.fit.xattr-size: planned nothing, found losses of this class",
	}
	if d := Drift(p, q); !reflect.DeepEqual(d, want) {
		t.Errorf("%s", strings.Join(d, "\n"))
	}
}

func TestPolicyWindow(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	for _, tc := range []struct {
		policy, at string
		want       bool
	}{
		{"manual", "12:00", false},
		{"auto", "12:00", true},
		{"window:02:00-04:00", "01:59", false},
		{"window:02:00-04:00", "02:00", true},
		{"window:02:00-04:00", "03:59", true},
		{"window:02:00-04:00", "04:00", false},
		{"window:22:00-04:00", "21:59", false},
		{"window:22:00-04:00", "23:00", true},
		{"window:22:00-04:00", "00:00", true},
		{"window:22:00-04:00", "04:00", false},
	} {
		p, err := ParsePolicy(tc.policy)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := time.Parse("15:04", tc.at)
		if got := p.Allows(at); got != tc.want {
			t.Errorf("%s at %s: %v", tc.policy, tc.at, got)
		}
	}
	for _, bad := range []string{"", "now", "window:", "window:1:00-2:00", "window:02:00-02:00", "window:02:00-24:00"} {
		if _, err := ParsePolicy(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

// TestPlanDocument: every key of the file is in docs/plan.md, and no other.
func TestPlanDocument(t *testing.T) {
	data, err := os.ReadFile("../docs/plan.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			key, _, _ = strings.Cut(key, "`")
			rows[key] = true
		}
	}
	for _, key := range planKeys("", reflect.TypeFor[Plan]()) {
		if !rows[key] {
			t.Errorf("docs/plan.md has no row for %s", key)
		}
		delete(rows, key)
	}
	for key := range rows {
		t.Errorf("docs/plan.md describes %s, which does not exist", key)
	}
}

func planKeys(prefix string, t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		key, of := prefix+name, f.Type
		if of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct {
			key, of = key+"[]", of.Elem()
		}
		if of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]() {
			keys = append(keys, planKeys(key+".", of)...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte(planText))
	f.Add([]byte(strings.Replace(planText, "unit: app.service", "accept_erofs: true", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePlan(data)
		if err != nil {
			return
		}
		out, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParsePlan(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if !reflect.DeepEqual(p, q) || p.Digest() != q.Digest() {
			t.Fatalf("%+v\nbecame %+v", p, q)
		}
	})
}
