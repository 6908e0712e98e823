// Command recorder is the machine's disks in the tests of power cuts: a process of its
// own that serves images as files of a mount, for loops with direct I/O.
//
//	recorder record --dir MNT --log LOG --images source=128M,shadow=320M,state=64M
//	recorder serve  --dir MNT --log LOG --cut N/LOSS/SEED
//	recorder show   --log LOG [--from N --to N]
//
// record logs everything that is written and serves until its mount is gone. serve serves what a
// power cut after N entries would have left, and forgets what is written to it. Both say
// "ready" when the mount is there. show prints entries.
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
		return errors.New("usage: recorder record|serve|show [flags]")
	}
	var f flags
	fs := flag.NewFlagSet("recorder "+args[0], flag.ExitOnError)
	fs.StringVar(&f.dir, "dir", "", "where the images are served")
	fs.StringVar(&f.log, "log", "", "the log")
	fs.StringVar(&f.images, "images", "", "record: NAME=SIZE, by comma; sizes in MiB with an M")
	fs.StringVar(&f.cut, "cut", "", "serve: ENTRIES/LOSS/SEED")
	fs.IntVar(&f.from, "from", 0, "show: the first entry")
	fs.IntVar(&f.to, "to", 1<<62, "show: the entry behind the last")
	_ = fs.Parse(args[1:])
	switch args[0] {
	case "record":
		return f.record()
	case "serve":
		return f.serve()
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
	s := record.Service{Images: r.Images(), Mark: func(text string) error { _, err := r.Mark(text); return err }}
	for i := range s.Images {
		s.Disks = append(s.Disks, r.Disk(i))
	}
	return errors.Join(until(fd, s), r.Close())
}

func (f flags) serve() error {
	fd, err := record.Apart(f.dir)
	if err != nil {
		return err
	}
	l, err := record.OpenLog(f.log)
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := record.ParseCut(f.cut)
	if err != nil {
		return err
	}
	state, err := l.State(c)
	if err != nil {
		return err
	}
	s := record.Service{Images: l.Images}
	for i := range s.Images {
		s.Disks = append(s.Disks, state.Disk(i))
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
