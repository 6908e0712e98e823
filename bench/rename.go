package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// rename measures what it costs when the directory that all files are in is renamed in
// the middle of the first copy: a walk with it beside one without. Identity is followed,
// so it must cost one rename and copy nothing again.
func (b *bench) rename(ctx context.Context) (res *result, err error) {
	r, err := newRig(ctx, b.Dir, int64(b.Files)*24<<10+2<<30, int64(b.Files)*5/4+10000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	names := [2]string{filepath.Join(r.data(), "before"), filepath.Join(r.data(), "after")}
	if err := os.Mkdir(names[0], 0o755); err != nil {
		return nil, err
	}
	const moved = "renamed in the middle"
	res = &result{Name: "first copy with the directory of all files renamed in the middle", Cache: cold, Files: b.Files,
		Base: ours, Series: []series{{Name: ours}, {Name: moved}}}
	if res.Bytes, err = SmallFiles(ctx, names[0], b.Files); err != nil {
		return nil, err
	}
	for round := range b.Runs {
		for k := range 2 {
			o := WalkOptions{Threads: b.Threads[0]}
			if k == 1 {
				o.Rename = names
			}
			at := load()
			m, err := b.walkOnce(ctx, r, o)
			if err != nil {
				return nil, err
			}
			m.Load = at
			res.Series[k].Runs = append(res.Series[k].Runs, m)
			fmt.Fprintf(b.w, "  round %d  %-22s %8.3f s  %d objects created  load %.1f\n", round+1, res.Series[k].Name, m.Seconds, m.Objects, at)
			if plain := res.Series[0].Runs[0].Objects; m.Objects != plain {
				res.Notes = append(res.Notes, fmt.Sprintf("round %d: %d objects were created instead of %d: something was copied again", round+1, m.Objects, plain))
			}
			if k == 1 {
				names[0], names[1] = names[1], names[0]
			}
		}
	}
	if len(res.Notes) == 0 {
		res.Notes = []string{"with and without the rename, each object was created once"}
	}
	return res, nil
}
