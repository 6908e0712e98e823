package statedir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func recordName(seq int) string { return fmt.Sprintf("%04d.json", seq) }

func doubtName(seq int) string { return fmt.Sprintf("%04d.doubt", seq) }

// recordSeq reads a record's number from its file's name.
func recordSeq(name string) (int, bool) {
	digits, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return 0, false
	}
	seq, err := strconv.Atoi(digits)
	return seq, err == nil && seq >= 0 && recordName(seq) == name
}

// encodeRecord is one line of JSON and one line with its SHA-256.
func encodeRecord(r migrate.Record) ([]byte, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode switch record %d: %w", r.Seq, err)
	}
	return seal(line), nil
}

func seal(line []byte) []byte {
	data := append(bytes.Clone(line), '\n')
	sum := sha256.Sum256(data)
	return append(data, "sha256 "+hex.EncodeToString(sum[:])+"\n"...)
}

// parseRecord is the inverse of encodeRecord, and accepts nothing else.
func parseRecord(data []byte) (migrate.Record, error) {
	var r migrate.Record
	line, _, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return r, errors.New("torn: no end of line")
	}
	if !bytes.Equal(data, seal(line)) {
		return r, errors.New("torn: the checksum is missing or wrong")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, err
	}
	if r.Truth != migrate.Source && r.Truth != migrate.Shadow {
		return r, fmt.Errorf("truth %q is neither source nor shadow", r.Truth)
	}
	if r.Seq < 0 {
		return r, fmt.Errorf("number %d", r.Seq)
	}
	return r, nil
}

// Truth reads the newest switch record and makes sure that it is durable before
// anybody acts on it. Every doubt is *migrate.Ambiguous.
func (d *Dir) Truth(ctx context.Context) (migrate.Record, error) {
	r, err := d.newest(ctx)
	if err != nil || r.By == migrate.Operator {
		return r, err
	}
	s, err := d.Load(ctx)
	if err != nil {
		return migrate.Record{}, err
	}
	if err := migrate.Contradiction(d.id, s, r); err != nil {
		return migrate.Record{}, err
	}
	return r, nil
}

// newest reads the records from the highest down to the first, or to one that an
// operator committed, which supersedes what is below it.
func (d *Dir) newest(ctx context.Context) (top migrate.Record, err error) {
	if err := ctx.Err(); err != nil {
		return top, err
	}
	numbers, names, err := d.numbers()
	if err != nil {
		return top, err
	}
	if len(numbers) == 0 {
		return top, d.ambiguous("there is no switch record", nil)
	}
	for i := len(numbers) - 1; i >= 0; i-- {
		seq := numbers[i]
		if i < len(numbers)-1 && seq != numbers[i+1]-1 {
			return top, d.ambiguous(fmt.Sprintf("switch record %d is missing, %d is there", numbers[i+1]-1, numbers[i+1]), nil)
		}
		r, err := d.readRecord(seq)
		if err != nil {
			return top, err
		}
		if slices.Contains(names, doubtName(seq)) {
			return top, d.ambiguous(fmt.Sprintf("switch record %d (%s) was written, but its directory could not be synced", seq, r.Truth), nil)
		}
		if i == len(numbers)-1 {
			top = r
		}
		if r.By == migrate.Operator {
			break
		}
		if i == 0 && seq != 0 {
			return top, d.ambiguous(fmt.Sprintf("switch record %d is missing, %d is there", seq-1, seq), nil)
		}
	}
	// Whoever linked it may have died before the sync.
	if err := d.fs.syncDir(d.switchPath()); err != nil {
		return top, d.ambiguous("the switch directory cannot be synced", err)
	}
	return top, nil
}

func (d *Dir) switchPath() string { return filepath.Join(d.Path(), switchDir) }

func (d *Dir) numbers() (numbers []int, names []string, err error) {
	names, err = d.fs.list(d.switchPath())
	if err != nil {
		return nil, nil, d.ambiguous("the switch records cannot be listed", err)
	}
	for _, n := range names {
		if seq, ok := recordSeq(n); ok {
			numbers = append(numbers, seq)
		}
	}
	slices.Sort(numbers)
	return numbers, names, nil
}

func (d *Dir) readRecord(seq int) (migrate.Record, error) {
	data, err := d.fs.read(filepath.Join(d.switchPath(), recordName(seq)))
	if err != nil {
		return migrate.Record{}, d.ambiguous(fmt.Sprintf("switch record %d cannot be read", seq), err)
	}
	r, err := parseRecord(data)
	if err == nil && r.Seq != seq {
		err = fmt.Errorf("it says number %d", r.Seq)
	}
	if err != nil {
		return migrate.Record{}, d.ambiguous(fmt.Sprintf("switch record %d", seq), err)
	}
	return r, nil
}

// Commit makes r the record of its number, or answers the one that was first.
func (d *Dir) Commit(ctx context.Context, r migrate.Record) (migrate.Record, error) {
	if err := ctx.Err(); err != nil {
		return migrate.Record{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	top, err := d.newest(ctx)
	if err != nil {
		return migrate.Record{}, err
	}
	switch {
	case r.Seq <= top.Seq:
		return d.readRecord(r.Seq)
	case r.Seq != top.Seq+1:
		return migrate.Record{}, fmt.Errorf("commit switch record %d: the newest is %d", r.Seq, top.Seq)
	}
	return d.link(r)
}

// link commits r. Up to link(2) a failure changes nothing; after it, it is a doubt.
func (d *Dir) link(r migrate.Record) (migrate.Record, error) {
	none := migrate.Record{}
	data, err := encodeRecord(r)
	if err != nil {
		return none, err
	}
	dir := d.switchPath()
	tmp, err := writeTemp(d.fs, dir, data)
	if err != nil {
		return none, fmt.Errorf("commit switch record %d: %w", r.Seq, err)
	}
	defer func() { _ = d.fs.remove(tmp) }()
	if err := d.fs.link(tmp, filepath.Join(dir, recordName(r.Seq))); err != nil && !errors.Is(err, fs.ErrExist) {
		if names, lerr := d.fs.list(dir); lerr != nil || slices.Contains(names, recordName(r.Seq)) {
			return none, d.doubt(r.Seq, errors.Join(err, lerr))
		}
		return none, fmt.Errorf("commit switch record %d: %w", r.Seq, err)
	}
	// Also for one that somebody else linked: it counts once it is durable.
	if err := d.fs.syncDir(dir); err != nil {
		return none, d.doubt(r.Seq, err)
	}
	return d.readRecord(r.Seq)
}

// doubt leaves a mark beside a record that may or may not outlive a power cut: the
// next sync of the directory would succeed and prove nothing (I6).
func (d *Dir) doubt(seq int, err error) error {
	if f, cerr := d.fs.create(filepath.Join(d.switchPath(), doubtName(seq))); cerr == nil {
		_ = f.Sync()
		_ = f.Close()
		_ = d.fs.syncDir(d.switchPath())
	}
	return d.ambiguous(fmt.Sprintf("switch record %d may or may not be durable", seq), err)
}

// Decide commits the operator's decision above whatever is there, readable or not. A state
// that cannot be read is replaced by one that fits the decision.
func (d *Dir) Decide(ctx context.Context, truth migrate.Side, why string) (migrate.Record, error) {
	if truth != migrate.Source && truth != migrate.Shadow {
		return migrate.Record{}, &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf("truth %q", truth), Hint: "--truth source or --truth shadow"}
	}
	if err := d.Audit(ctx, "decided", map[string]any{"truth": truth, "why": why}); err != nil {
		return migrate.Record{}, err
	}
	d.mu.Lock()
	numbers, _, err := d.numbers()
	if err != nil {
		d.mu.Unlock()
		return migrate.Record{}, err
	}
	seq := 0
	if len(numbers) > 0 {
		seq = numbers[len(numbers)-1] + 1
	}
	r, err := d.link(migrate.Record{Seq: seq, Truth: truth, By: migrate.Operator, Why: why, At: d.now()})
	d.mu.Unlock()
	if err != nil {
		return migrate.Record{}, err
	}
	if _, err := d.Load(ctx); err == nil {
		return r, nil
	}
	s := migrate.NewState(d.now())
	s.Phase, s.Service = migrate.Copy, "starting"
	if truth == migrate.Shadow {
		s.Phase = migrate.Reverse
	}
	s.Timeline = append(s.Timeline, migrate.Step{Phase: s.Phase, At: d.now(), Note: "state lost, decided by the operator"})
	return r, d.Save(ctx, s)
}
