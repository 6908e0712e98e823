// Command recorder is the machine's disks in the tests of power cuts and of failing disks: a
// process of its own that serves images as files of a mount, for loops with direct I/O.
//
//	recorder record   --dir MNT --log LOG --images source=128M,shadow=320M,state=64M
//	recorder continue --dir MNT --log LOG --after LOG --cut N/LOSS/SEED
//	recorder serve    --dir MNT --log LOG --cut N/LOSS/SEED
//	recorder fail     --dir MNT --images source=PATH,spare=PATH
//	recorder dump     --log LOG --cut N/LOSS/SEED --image NAME --to-file FILE
//	recorder show     --log LOG [--from N --to N]
//
// record logs everything that is written and serves until its mount is gone. continue does the
// same with images that hold what a cut of another log left, and dump writes one of those to a
// sparse file. serve serves what a
// power cut after N entries would have left, and forgets what is written to it. fail serves
// image files that fail as the file of marks says (record.Faults). All say "ready" when
// the mount is there. show prints entries.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"golang.org/x/sys/unix"
)

type flags struct {
	dir, log, images, cut string
	after, image, file    string
	from, to              int
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: recorder record|continue|serve|fail|dump|show [flags]")
	}
	var f flags
	fs := flag.NewFlagSet("recorder "+args[0], flag.ExitOnError)
	fs.StringVar(&f.dir, "dir", "", "where the images are served")
	fs.StringVar(&f.log, "log", "", "the log")
	fs.StringVar(&f.images, "images", "", "record: NAME=SIZE, by comma; sizes in MiB with an M. fail: NAME=PATH")
	fs.StringVar(&f.cut, "cut", "", "ENTRIES/LOSS/SEED; ENTRIES may be \"end\"")
	fs.StringVar(&f.after, "after", "", "continue: the log that was cut")
	fs.StringVar(&f.image, "image", "", "dump: which")
	fs.StringVar(&f.file, "to-file", "", "dump: where to")
	fs.IntVar(&f.from, "from", 0, "show: the first entry")
	fs.IntVar(&f.to, "to", 1<<62, "show: the entry behind the last")
	_ = fs.Parse(args[1:])
	switch args[0] {
	case "record":
		return f.record()
	case "continue":
		return f.resume()
	case "serve":
		return f.serve()
	case "fail":
		return f.fail()
	case "dump":
		return f.dump()
	case "show":
		return f.show()
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func (f flags) record() error {
	fd, err := record.Apart(f.dir)
	if err != nil {
		return err
	}
	var specs []record.ImageSpec
	for _, s := range strings.Split(f.images, ",") {
		name, size, _ := strings.Cut(s, "=")
		mib, err := strconv.ParseInt(strings.TrimSuffix(size, "M"), 10, 32)
		if err != nil {
			return fmt.Errorf("--images %s: %w", s, err)
		}
		specs = append(specs, record.ImageSpec{Name: name, Bytes: mib << 20})
	}
	r, err := record.NewRecorder(f.log, specs)
	if err != nil {
		return err
	}
	return f.serveRecorder(fd, r)
}

func (f flags) serveRecorder(fd int, r *record.Recorder) error {
	s := record.Service{Images: r.Images(), Mark: func(text string) error { _, err := r.Mark(text); return err }}
	for i := range s.Images {
		s.Disks = append(s.Disks, r.Disk(i))
	}
	return errors.Join(until(fd, s), r.Close())
}

func (f flags) resume() error {
	fd, err := record.Apart(f.dir)
	if err != nil {
		return err
	}
	l, state, err := f.state(f.after)
	if err != nil {
		return err
	}
	defer l.Close()
	r, err := record.Continue(f.log, state)
	if err != nil {
		return err
	}
	return f.serveRecorder(fd, r)
}

// state is what the cut left in a log.
func (f flags) state(log string) (*record.Log, *record.State, error) {
	l, err := record.OpenLog(log)
	if err != nil {
		return nil, nil, err
	}
	cut := f.cut
	if rest, ok := strings.CutPrefix(cut, "end/"); ok {
		cut = fmt.Sprintf("%d/%s", len(l.Entries), rest)
	}
	c, err := record.ParseCut(cut)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	s, err := l.State(c)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, s, nil
}

func (f flags) dump() error {
	l, state, err := f.state(f.log)
	if err != nil {
		return err
	}
	defer l.Close()
	for i, img := range l.Images {
		if img.Name != f.image {
			continue
		}
		out, err := os.OpenFile(f.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		err = out.Truncate(img.Bytes())
		if err == nil {
			err = record.EachUsed(state.Disk(i), func(p []byte, off int64) error { _, err := out.WriteAt(p, off); return err })
		}
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("--image %q: the log has no such image", f.image)
}

func (f flags) serve() error {
	fd, err := record.Apart(f.dir)
	if err != nil {
		return err
	}
	l, state, err := f.state(f.log)
	if err != nil {
		return err
	}
	defer l.Close()
	s := record.Service{Images: l.Images}
	for i := range s.Images {
		s.Disks = append(s.Disks, state.Disk(i))
	}
	return until(fd, s)
}

func (f flags) fail() error {
	fd, err := record.Apart(f.dir)
	if err != nil {
		return err
	}
	faults := record.Faults{}
	s := record.Service{Mark: faults.Mark, Tell: faults.Tell}
	for _, image := range strings.Split(f.images, ",") {
		name, path, _ := strings.Cut(image, "=")
		d, err := record.OpenFile(path)
		if err != nil {
			return err
		}
		faults[name] = &record.Faulty{Disk: d}
		s.Images, s.Disks = append(s.Images, record.Image{Name: name}), append(s.Disks, faults[name])
	}
	return until(fd, s)
}

// until serves until the mount is gone, or a signal ends it at once: then whoever
// still uses it gets errors.
func until(fd int, s record.Service) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	done, err := record.Serve(fd, s)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	select {
	case <-done:
	case <-signals:
	}
	return nil
}

func (f flags) show() error {
	l, err := record.OpenLog(f.log)
	if err != nil {
		return err
	}
	defer l.Close()
	for n := max(0, f.from); n < min(f.to, len(l.Entries)); n++ {
		e := l.Entries[n]
		switch {
		case e.Has(record.FlagMark):
			fmt.Printf("%d mark %s\n", n, e.Mark)
		case e.Has(record.FlagFlush):
			fmt.Printf("%d %s flush\n", n, l.Images[e.Image].Name)
		case e.Has(record.FlagDiscard):
			fmt.Printf("%d %s discard %d+%d\n", n, l.Images[e.Image].Name, e.Sector-l.Images[e.Image].Base, e.Sectors)
		default:
			fmt.Printf("%d %s write %d+%d\n", n, l.Images[e.Image].Name, e.Sector-l.Images[e.Image].Base, e.Sectors)
		}
	}
	return nil
}
