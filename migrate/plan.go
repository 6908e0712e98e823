package migrate

import "time"

// PlanVersion is the version of the plan file's schema that this code writes.
const PlanVersion = 1

// Plan is the live update package: what changes, what it needs, what it would
// lose, and the policy. A person reviews it; Run executes it. Unknown keys are
// errors. The documented schema is docs/plan.md, tested against these fields.
type Plan struct {
	Version  int         `yaml:"version" json:"version"`
	ID       string      `yaml:"id" json:"id"`             // the migration's name: [a-z0-9][a-z0-9-]{0,31}
	Category string      `yaml:"category" json:"category"` // taxonomy: "5: update affects data on the disk"
	Source   SourceSpec  `yaml:"source" json:"source"`
	Target   TargetSpec  `yaml:"target" json:"target"`
	Tracker  string      `yaml:"tracker" json:"tracker"` // "watch"
	Service  ServiceSpec `yaml:"service,omitempty" json:"service"`
	Cutover  CutoverSpec `yaml:"cutover" json:"cutover"`
	Copy     CopySpec    `yaml:"copy" json:"copy"`
	Persist  PersistSpec `yaml:"persist" json:"persist"`
	Waive    []Waiver    `yaml:"waive,omitempty" json:"waive,omitempty"`
	Observed Observed    `yaml:"observed,omitempty" json:"observed"`
}

// DeviceSpec names a block device so that it is found again after a reboot.
type DeviceSpec struct {
	Path  string   `yaml:"path" json:"path"`                               // as given; a hint
	IDs   []string `yaml:"ids,omitempty" json:"ids,omitempty"`             // "wwn:…", "partuuid:…", "lv:…", "serial:…", "loopfile:…"; any one that resolves must resolve to a device of Bytes
	Bytes int64    `yaml:"bytes" json:"bytes"`                             // size
	File  string   `yaml:"file,omitempty" json:"file,omitempty"`           // file: spare: the image below the loop
	Size  int64    `yaml:"file_size,omitempty" json:"file_size,omitempty"` // file: spare: size to create it with
}

// SourceSpec is the volume in use.
type SourceSpec struct {
	Mount   string     `yaml:"mount" json:"mount"` // where it is mounted, and where the new one will be
	Device  DeviceSpec `yaml:"device" json:"device"`
	Format  string     `yaml:"format" json:"format"` // ext2, ext3, ext4, xfs, btrfs
	UUID    string     `yaml:"uuid" json:"uuid"`
	Label   string     `yaml:"label,omitempty" json:"label,omitempty"`
	Options string     `yaml:"options,omitempty" json:"options,omitempty"` // mount options to carry (VFS flags: nosuid, nodev, noexec, noatime, …)
}

// TargetSpec is the format to change to and the spare it goes on.
type TargetSpec struct {
	Format  string            `yaml:"format" json:"format"`
	Options map[string]string `yaml:"options,omitempty" json:"options,omitempty"` // format properties: inode_size=256
	Spare   DeviceSpec        `yaml:"spare" json:"spare"`
	Label   string            `yaml:"label,omitempty" json:"label,omitempty"` // the label it gets at finalize
	Wipe    bool              `yaml:"wipe,omitempty" json:"wipe,omitempty"`   // overwrite signatures found on the spare
}

// ServiceSpec says how the application is stopped and started around the fence.
// Exactly one of Unit, Stop+Start, AcceptEROFS must be given for a watch to cut over.
type ServiceSpec struct {
	Unit          string   `yaml:"unit,omitempty" json:"unit,omitempty"`
	Stop          string   `yaml:"stop,omitempty" json:"stop,omitempty"`   // sh -c
	Start         string   `yaml:"start,omitempty" json:"start,omitempty"` // sh -c
	Health        string   `yaml:"health,omitempty" json:"health,omitempty"`
	AcceptEROFS   bool     `yaml:"accept_erofs,omitempty" json:"accept_erofs,omitempty"`
	OnFailure     string   `yaml:"on_failure,omitempty" json:"on_failure,omitempty"` // rollback (default), hold
	StopTimeout   Duration `yaml:"stop_timeout,omitempty" json:"stop_timeout"`
	StartTimeout  Duration `yaml:"start_timeout,omitempty" json:"start_timeout"`
	HealthTimeout Duration `yaml:"health_timeout,omitempty" json:"health_timeout"`
}

// Configured reports whether anything stops and starts the application.
func (s ServiceSpec) Configured() bool { return s.Unit != "" || s.Stop != "" || s.Start != "" }

// CutoverSpec is the policy of the swap.
type CutoverSpec struct {
	Policy      string   `yaml:"policy" json:"policy"`             // manual, auto, window:HH:MM-HH:MM
	PauseBudget Duration `yaml:"pause_budget" json:"pause_budget"` // longest pause allowed
	Deadline    Duration `yaml:"deadline" json:"deadline"`         // fence → record, after which it is undone
	Finalize    bool     `yaml:"finalize,omitempty" json:"finalize,omitempty"`
	Old         string   `yaml:"old,omitempty" json:"old,omitempty"` // follow (default), keep
}

// CopySpec bounds what the copy may take from the application.
type CopySpec struct {
	Policy  string `yaml:"policy" json:"policy"`                       // gentle, asap
	Rate    int64  `yaml:"rate,omitempty" json:"rate,omitempty"`       // bytes/s for copying and verification together; 0: no cap
	Threads int    `yaml:"threads,omitempty" json:"threads,omitempty"` // 0: by processors and policy
}

// PersistSpec says what survives a reboot and where.
type PersistSpec struct {
	Fstab   string `yaml:"fstab" json:"fstab"`                     // the file; empty: the volume is not in fstab
	Entry   string `yaml:"entry,omitempty" json:"entry,omitempty"` // the native line as found, restored or rewritten at the end
	NoSuper bool   `yaml:"no_supervisor,omitempty" json:"no_supervisor,omitempty"`
}

// Waiver accepts one class of loss or one refused check, by name and with a reason.
type Waiver struct {
	Class  string `yaml:"class" json:"class"`
	Reason string `yaml:"reason" json:"reason"`
}

// Observed is what planning saw. Run compares it field by field before it
// starts; a difference is drift, and drift is refused.
type Observed struct {
	Kernel       string    `yaml:"kernel" json:"kernel"`
	MountOptions string    `yaml:"mount_options" json:"mount_options"`
	Propagation  string    `yaml:"propagation" json:"propagation"`
	Features     []string  `yaml:"features,omitempty" json:"features"`
	Tools        []string  `yaml:"tools,omitempty" json:"tools"`
	Objects      int64     `yaml:"objects" json:"objects"` // not drift, an estimate's base
	Bytes        int64     `yaml:"bytes" json:"bytes"`     // likewise
	Fit          []Fit     `yaml:"fit,omitempty" json:"fit"`
	At           time.Time `yaml:"at" json:"at"`
}

// Fit is one class of facts that the target cannot hold.
type Fit struct {
	Class   string   `yaml:"class" json:"class"` // e.g. "xattr-size", "identity"
	Count   int64    `yaml:"count" json:"count"` // -1: not counted
	Samples []string `yaml:"samples,omitempty" json:"samples,omitempty"`
	Why     string   `yaml:"why" json:"why"`
	Always  bool     `yaml:"always,omitempty" json:"always,omitempty"` // holds for every migration of this pair, needs no waiver (identity)
}

// Waives reports whether class is waived and why.
func (p *Plan) Waives(class string) (string, bool) {
	for _, w := range p.Waive {
		if w.Class == class {
			return w.Reason, true
		}
	}
	return "", false
}

// Duration is a time.Duration that YAML and JSON write as "2s".
type Duration time.Duration
