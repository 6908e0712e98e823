package formattest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// BenchScan measures Scan of f with FSMIGRATE_SCAN_INODES inodes (100,000 when
// unset), warm, and cold after the caches were dropped once an iteration.
func BenchScan(b *testing.B, f formats.Format, opts map[string]string) {
	n := 100000
	if s := os.Getenv("FSMIGRATE_SCAN_INODES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	v := MakeWith(b, f, formats.MakeOptions{Options: opts, Bytes: int64(n)*8192 + 512<<20, Objects: int64(n)})
	v.Mount(f.Name(), "")
	for i := range n {
		dir := filepath.Join(v.Dir, strconv.Itoa(i/1000))
		if i%1000 == 0 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		fd, err := unix.Open(filepath.Join(dir, fmt.Sprintf("f%d", i)), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
	v.Sync()
	fd := v.Open()
	defer unix.Close(fd)
	scan := func(b *testing.B) {
		var sum uint64
		info, err := f.ScanBatch(b.Context(), formats.ScanTarget{Device: v.Device, MountFD: fd}, 0, func(recs []formats.InodeRecord) error {
			for i := range recs {
				sum += uint64(recs[i].Gen) + uint64(recs[i].CtimeNsec)
			}
			return nil
		})
		if err != nil || info.Inodes < int64(n) {
			b.Fatalf("%+v: %v", info, err)
		}
	}
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		scan(b)
		for b.Loop() {
			scan(b)
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "inodes/s")
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			scan(b)
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "inodes/s")
	})
}
