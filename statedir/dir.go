package statedir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// DefaultRoot is where migrations live without --state.
const DefaultRoot = "/var/lib/fsmigrate"

// Dir is the state directory of one migration. It implements migrate.Store. Safe for
// use by several goroutines and, but for Save, by several processes.
type Dir struct {
	root, id string
	fs       fsys
	plan     migrate.Plan
	digest   string
	who      Who
	now      func() time.Time

	mu      sync.Mutex // serializes Save, Commit and Audit of this process
	guard   *os.File   // the lock, while it is held
	audited bool       // the audit log exists and ends with a whole line of ours
}

var _ migrate.Store = (*Dir)(nil)

const (
	planFile  = "plan.yaml"
	stateFile = "state.json"
	switchDir = "switch"
	auditFile = "audit.jsonl"
)

// Create makes the state directory of a new migration: complete, or not at all. The
// root is made when it is missing.
func Create(root string, p *migrate.Plan) (*Dir, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	if err := owned(root, false); err != nil {
		return nil, refused(err)
	}
	return create(osFS{}, root, p)
}

func create(f fsys, root string, p *migrate.Plan) (*Dir, error) {
	plan := p.WithDefaults()
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	data, err := plan.Marshal()
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, id: plan.ID, fs: f, plan: plan, digest: plan.Digest(), who: Me(), now: time.Now}
	names, err := f.list(root)
	if err != nil {
		return nil, fmt.Errorf("create state of %s: %w", d.id, err)
	}
	if slices.Contains(names, d.id) {
		return nil, exists(d.id)
	}
	tmp := filepath.Join(root, tempName()+"-"+d.id)
	if err := d.fill(tmp, data); err != nil {
		discard(f, tmp)
		return nil, fmt.Errorf("create state of %s: %w", d.id, err)
	}
	if err := f.rename(tmp, d.Path()); err != nil {
		discard(f, tmp)
		if errors.Is(err, fs.ErrExist) {
			return nil, exists(d.id)
		}
		return nil, fmt.Errorf("create state of %s: %w", d.id, err)
	}
	if err := f.syncDir(root); err != nil {
		return nil, fmt.Errorf("create state of %s: %w", d.id, err)
	}
	return d, nil
}

// fill writes everything that a migration begins with below dir.
func (d *Dir) fill(dir string, plan []byte) error {
	record, err := encodeRecord(migrate.Record{Truth: migrate.Source, By: "engine", Why: "the migration begins", At: d.now()})
	if err != nil {
		return err
	}
	state, err := encodeState(migrate.NewState(d.now()))
	if err != nil {
		return err
	}
	sw := filepath.Join(dir, switchDir)
	for _, step := range []func() error{
		func() error { return d.fs.mkdir(dir) },
		func() error { return d.fs.mkdir(sw) },
		func() error { return replace(d.fs, dir, planFile, plan) },
		func() error { return replace(d.fs, sw, recordName(0), record) },
		func() error { return replace(d.fs, dir, stateFile, state) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// discard removes what a failed Create left. What remains is ignored by List.
func discard(f fsys, dir string) {
	for _, sub := range []string{filepath.Join(dir, switchDir), dir} {
		names, _ := f.list(sub)
		for _, n := range names {
			_ = f.remove(filepath.Join(sub, n))
		}
		_ = f.remove(sub)
	}
}

// Open opens the state directory of a migration.
func Open(root, id string) (*Dir, error) {
	if !migrate.ValidID(id) {
		return nil, &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf("%q is not the name of a migration", id), Hint: "fsmigrate list"}
	}
	path := filepath.Join(root, id)
	if err := owned(path, true); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &migrate.Problem{Kind: migrate.Failed, What: fmt.Sprintf("there is no migration %s in %s", id, root), Why: fs.ErrNotExist, Hint: "fsmigrate list; is the state directory mounted?"}
		}
		return nil, refused(err)
	}
	return open(osFS{}, root, id)
}

func open(f fsys, root, id string) (*Dir, error) {
	d := &Dir{root: root, id: id, fs: f, who: Me(), now: time.Now}
	data, err := f.read(filepath.Join(d.Path(), planFile))
	if err != nil {
		return nil, fmt.Errorf("read plan of %s: %w", id, err)
	}
	if d.plan, err = migrate.ParsePlan(data); err != nil {
		return nil, fmt.Errorf("plan of %s: %w", id, err)
	}
	if d.plan.ID != id {
		return nil, fmt.Errorf("plan of %s: it is that of %s", id, d.plan.ID)
	}
	d.digest = d.plan.Digest()
	return d, nil
}

// List names the migrations below root, sorted; none when there is no root.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && migrate.ValidID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Path is the directory itself; sockets and journals of the migration live in it too.
func (d *Dir) Path() string { return filepath.Join(d.root, d.id) }

// ID is the migration's name.
func (d *Dir) ID() string { return d.id }

// Plan is the plan that the migration was created with.
func (d *Dir) Plan() migrate.Plan { return d.plan }

// Digest is the digest of that plan.
func (d *Dir) Digest() string { return d.digest }

// Load reads the state. One that cannot be read is *migrate.Ambiguous.
func (d *Dir) Load(ctx context.Context) (migrate.State, error) {
	if err := ctx.Err(); err != nil {
		return migrate.State{}, err
	}
	data, err := d.fs.read(filepath.Join(d.Path(), stateFile))
	if err != nil {
		return migrate.State{}, d.ambiguous("the state file cannot be read", err)
	}
	s, err := parseState(data)
	if err != nil {
		return migrate.State{}, d.ambiguous("the state file cannot be understood", err)
	}
	return s, nil
}

// Save replaces the state, durably.
func (d *Dir) Save(ctx context.Context, s migrate.State) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := replace(d.fs, d.Path(), stateFile, data); err != nil {
		return fmt.Errorf("save state of %s: %w", d.id, err)
	}
	return nil
}

// Retire moves the directory of a migration that has ended out of the way, so that
// its name can be used again. Its audit log is kept with it.
func (d *Dir) Retire(ctx context.Context) (string, error) {
	s, err := d.Load(ctx)
	if err != nil {
		return "", err
	}
	if !s.Phase.Ended() {
		return "", &migrate.Problem{Kind: migrate.IsRefused, What: fmt.Sprintf("migration %s is in %s", d.id, s.Phase), Hint: "fsmigrate status " + d.id}
	}
	to := d.Path() + "." + d.now().UTC().Format("20060102T150405.000")
	if err := d.fs.rename(d.Path(), to); err != nil {
		return "", fmt.Errorf("retire %s: %w", d.id, err)
	}
	if err := d.fs.syncDir(d.root); err != nil {
		return "", fmt.Errorf("retire %s: %w", d.id, err)
	}
	return to, nil
}

func encodeState(s migrate.State) ([]byte, error) {
	s.Version = migrate.StateVersion
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return append(data, '\n'), nil
}

func parseState(data []byte) (migrate.State, error) {
	var s migrate.State
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	switch {
	case s.Version != migrate.StateVersion:
		return s, fmt.Errorf("version %d, this program knows %d", s.Version, migrate.StateVersion)
	case !s.Phase.Known():
		return s, fmt.Errorf("phase %q is not known", s.Phase)
	}
	return s, nil
}

func (d *Dir) ambiguous(exact string, err error) *migrate.Ambiguous {
	if err != nil {
		exact += ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return &migrate.Ambiguous{
		Exact:  fmt.Sprintf("%s: %s", d.Path(), exact),
		Decide: "fsmigrate resume " + d.id + " --truth source|shadow",
		Err:    err,
	}
}

func exists(id string) error {
	return &migrate.Problem{Kind: migrate.IsRefused, What: fmt.Sprintf("there is a migration %s already", id), Why: fs.ErrExist, Hint: "fsmigrate status " + id}
}

func refused(err error) error {
	return &migrate.Problem{Kind: migrate.IsRefused, What: "the state directory cannot be trusted", Why: err, Hint: "check who made it, then chown and chmod 0700"}
}
