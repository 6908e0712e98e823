package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Global are the options of every command.
type Global struct {
	State string `flag:"state" arg:"DIR" env:"FSMIGRATE_STATE" usage:"where migrations keep their state"`
	Fstab string `flag:"fstab" arg:"FILE" env:"FSMIGRATE_FSTAB" usage:"the file that says what is mounted at boot"`
	JSON  bool   `flag:"json" usage:"print JSON; errors too"`
}

func defaultGlobal() Global {
	return Global{State: "/var/lib/fsmigrate", Fstab: "/etc/fstab"}
}

// ChangeOptions say what to change and under which policy: what a plan is made of.
type ChangeOptions struct {
	To            string        `flag:"to" arg:"FORMAT[:k=v,...]" usage:"format to change to, with properties for its mkfs: ext4:inode_size=256"`
	Spare         string        `flag:"spare" arg:"SPARE" usage:"where it goes: a block device, or file:PATH,size=SIZE for an image"`
	ID            string        `flag:"id" arg:"ID" usage:"name of the migration (default: made from SOURCE)"`
	Wipe          bool          `flag:"wipe" usage:"overwrite the signatures found on the spare"`
	Waive         []string      `flag:"waive" arg:"CLASS[=REASON]" usage:"accept a class of loss or a refused check, by name; repeatable"`
	Unit          string        `flag:"unit" arg:"NAME" usage:"systemd unit to stop and start around the cutover"`
	Stop          string        `flag:"stop" arg:"CMD" usage:"command that stops the application (sh -c)"`
	Start         string        `flag:"start" arg:"CMD" usage:"command that starts it again (sh -c)"`
	AcceptEROFS   bool          `flag:"accept-erofs" usage:"stop nothing: the application survives write errors for the length of the pause"`
	Health        string        `flag:"health" arg:"CMD" usage:"command that succeeds when the application works after the cutover (sh -c)"`
	OnFailure     string        `flag:"on-failure" arg:"ACTION" usage:"when it does not start or is not healthy: rollback or hold"`
	StopTimeout   time.Duration `flag:"stop-timeout" arg:"TIME" usage:"how long stopping may take"`
	StartTimeout  time.Duration `flag:"start-timeout" arg:"TIME" usage:"how long starting may take"`
	HealthTimeout time.Duration `flag:"health-timeout" arg:"TIME" usage:"how long it may take to become healthy"`
	Cutover       string        `flag:"cutover" arg:"WHEN" usage:"manual, auto, or window:HH:MM-HH:MM"`
	PauseBudget   time.Duration `flag:"pause-budget" arg:"TIME" usage:"longest pause allowed: no cutover while a longer one is predicted"`
	Deadline      time.Duration `flag:"deadline" arg:"TIME" usage:"a cutover not recorded after this time is undone (default: 30s, or 5 times the pause budget)"`
	Finalize      bool          `flag:"finalize" usage:"end at once after a verified cutover, with no way back"`
	Old           string        `flag:"old" arg:"HOW" usage:"the old volume after the cutover: follow (kept in step) or keep (as at the fence)"`
	Policy        string        `flag:"policy" arg:"HOW" usage:"gentle (yield to the application) or asap"`
	Rate          Size          `flag:"rate" arg:"SIZE" usage:"cap for copying and verifying, bytes per second: 50M"`
	Threads       int           `flag:"threads" arg:"N" usage:"copying threads (default: by processors and policy)"`
	NoSupervisor  bool          `flag:"no-supervisor" usage:"nothing restarts fsmigrate after a crash or a reboot; you do, with resume"`
}

// defaultChange takes its defaults from where plans have theirs.
func defaultChange() ChangeOptions {
	d := migrate.Plan{}.WithDefaults()
	return ChangeOptions{
		OnFailure:     d.Service.OnFailure,
		StopTimeout:   time.Duration(d.Service.StopTimeout),
		StartTimeout:  time.Duration(d.Service.StartTimeout),
		HealthTimeout: time.Duration(d.Service.HealthTimeout),
		Cutover:       d.Cutover.Policy,
		PauseBudget:   time.Duration(d.Cutover.PauseBudget),
		Old:           d.Cutover.Old,
		Policy:        d.Copy.Policy,
	}
}

// Validate finds what is wrong on the command line alone; the plan that is made
// of it validates itself.
func (o ChangeOptions) Validate() error {
	if o.ID != "" && !migrate.ValidID(o.ID) {
		return usagef("lower case letters, digits and '-', at most 32", "--id: %q cannot name a migration", o.ID)
	}
	if o.Unit != "" && (o.Stop != "" || o.Start != "") {
		return usagef("give one of them", "--unit and --stop/--start exclude each other")
	}
	if (o.Stop == "") != (o.Start == "") {
		return usagef("give both: what is stopped must be started again", "--stop and --start belong together")
	}
	if o.AcceptEROFS && (o.Unit != "" || o.Stop != "") {
		return usagef("give one of them", "--accept-erofs means that nothing is stopped")
	}
	if _, err := migrate.ParsePolicy(o.Cutover); err != nil {
		return usagef("manual, auto, or window:02:00-04:00", "--cutover: %s", err)
	}
	if o.PauseBudget <= 0 {
		return usagef("a duration such as 2s", "--pause-budget must be more than nothing")
	}
	if o.Threads < 0 || o.Threads > 256 {
		return usagef("0 to 256", "--threads: %d is out of range", o.Threads)
	}
	if _, err := o.waivers(); err != nil {
		return err
	}
	if err := oneOf("on-failure", o.OnFailure, "rollback", "hold"); err != nil {
		return err
	}
	if err := oneOf("old", o.Old, "follow", "keep"); err != nil {
		return err
	}
	return oneOf("policy", o.Policy, "gentle", "asap")
}

// oneOf refuses a value that a flag does not have.
func oneOf(flag, v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return usagef("one of: "+strings.Join(allowed, ", "), "--%s: %q is none of its values", flag, v)
}

// waivers is --waive. A reason that was not given says where the waiver came from.
func (o ChangeOptions) waivers() ([]migrate.Waiver, error) {
	var list []migrate.Waiver
	for _, s := range o.Waive {
		class, reason, _ := strings.Cut(s, "=")
		if class == "" {
			return nil, usagef("--waive CLASS=REASON", "--waive: %q names no class", s)
		}
		if strings.TrimSpace(reason) == "" {
			reason = "given on the command line, no reason stated"
		}
		list = append(list, migrate.Waiver{Class: class, Reason: reason})
	}
	return list, nil
}

// request is what planning is asked for.
func (o ChangeOptions) request(source, fstab string) (planRequest, error) {
	if o.To == "" || o.Spare == "" {
		return planRequest{}, usagef("fsmigrate plan /data --to xfs --spare /dev/vg0/new",
			"%s: what to change to is missing: --to FORMAT and --spare SPARE", source)
	}
	if err := o.Validate(); err != nil {
		return planRequest{}, err
	}
	if _, _, err := formats.ParseSpec(o.To); err != nil {
		return planRequest{}, usagef("--to xfs, or --to ext4:inode_size=256; `fsmigrate formats` lists them", "--to: %s", err)
	}
	fstab, err := filepath.Abs(fstab)
	if err != nil {
		return planRequest{}, fmt.Errorf("resolve --fstab: %w", err)
	}
	return planRequest{
		ID: o.ID, Source: source, To: o.To, Spare: o.Spare, Fstab: fstab, Wipe: o.Wipe,
		Set: func(p *migrate.Plan) { o.apply(p, func(string) bool { return true }) },
	}, nil
}

// apply puts the policy flags that given reports into p: all of them into a plan
// being made, those on the command line into one read from a file.
func (o ChangeOptions) apply(p *migrate.Plan, given func(flag string) bool) {
	if given("unit") || given("stop") || given("start") || given("accept-erofs") {
		p.Service.Unit, p.Service.Stop, p.Service.Start, p.Service.AcceptEROFS = o.Unit, o.Stop, o.Start, o.AcceptEROFS
	}
	put(given("health"), &p.Service.Health, o.Health)
	put(given("on-failure"), &p.Service.OnFailure, o.OnFailure)
	put(given("stop-timeout"), &p.Service.StopTimeout, migrate.Duration(o.StopTimeout))
	put(given("start-timeout"), &p.Service.StartTimeout, migrate.Duration(o.StartTimeout))
	put(given("health-timeout"), &p.Service.HealthTimeout, migrate.Duration(o.HealthTimeout))
	put(given("cutover"), &p.Cutover.Policy, o.Cutover)
	put(given("pause-budget"), &p.Cutover.PauseBudget, migrate.Duration(o.PauseBudget))
	put(given("deadline"), &p.Cutover.Deadline, migrate.Duration(o.Deadline))
	put(given("finalize"), &p.Cutover.Finalize, o.Finalize)
	put(given("old"), &p.Cutover.Old, o.Old)
	put(given("policy"), &p.Copy.Policy, o.Policy)
	put(given("rate"), &p.Copy.Rate, int64(o.Rate))
	put(given("threads"), &p.Copy.Threads, o.Threads)
	put(given("no-supervisor"), &p.Persist.NoSuper, o.NoSupervisor)
	waive, _ := o.waivers() // Validate looked at them
	for _, w := range waive {
		p.Waive = slices.DeleteFunc(p.Waive, func(have migrate.Waiver) bool { return have.Class == w.Class })
		p.Waive = append(p.Waive, w)
	}
	*p = p.WithDefaults()
}

func put[T any](given bool, field *T, v T) {
	if given {
		*field = v
	}
}
