package copier

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a walk does per file of 4 KiB: open, read attributes, create, copy,
// dress, close. ext4 to xfs, everything in memory.
func BenchmarkSmallFile(b *testing.B) {
	src, dst := testVolume(b, "ext4"), testVolume(b, "xfs")
	const files = 1000
	sdir, ddir := openDir(b, src), openDir(b, dst)
	data := randomBytes(1, 4096)
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("file-%d", i)
		writeFile(b, src+"/"+names[i], data)
	}
	buf, ctx := NewBuffers(), context.Background()
	o := DressFor("xfs")
	o.Buffers = buf
	b.SetBytes(4096)
	b.ReportAllocs()
	i := 0
	begin := cpuTime(b)
	for b.Loop() {
		name := names[i%files]
		if i >= files && i%files == 0 {
			b.StopTimer()
			for _, n := range names {
				if err := unix.Unlinkat(ddir, n, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
		}
		i++
		s, err := OpenBeneath(sdir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOATIME|unix.O_NONBLOCK, 0)
		if err != nil {
			b.Fatal(err)
		}
		a, err := ReadAttr(s, buf)
		if err != nil {
			b.Fatal(err)
		}
		d, err := OpenBeneath(ddir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := CopyFd(ctx, s, d, a.Size, CopyOptions{Fresh: true, Buffers: buf}); err != nil {
			b.Fatal(err)
		}
		if err := Dress(d, a, o); err != nil {
			b.Fatal(err)
		}
		unix.Close(s)
		unix.Close(d)
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/float64(b.N), "cpu-ns/op") // with removing them again
}

// The parts of it.
func BenchmarkParts(b *testing.B) {
	src, dst := testVolume(b, "ext4"), testVolume(b, "xfs")
	writeFile(b, src+"/f", randomBytes(1, 4096))
	writeFile(b, dst+"/f", nil)
	s, d := openRead(b, src+"/f"), openFile(b, dst+"/f", os.O_RDWR)
	dfd, dir, p := int(d.Fd()), openDir(b, src), openPath(b, src+"/f")
	buf, ctx := NewBuffers(), context.Background()
	a, err := ReadAttr(s, buf)
	if err != nil {
		b.Fatal(err)
	}
	o := DressFor("xfs")
	o.Buffers = buf
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"copy 4 KiB", func() error { _, err := CopyFd(ctx, s, dfd, 4096, CopyOptions{Buffers: buf}); return err }},
		{"read attributes", func() error { _, err := ReadAttr(s, buf); return err }},
		{"read attributes by O_PATH", func() error { _, err := ReadAttr(p, buf); return err }},
		{"dress, nothing to do", func() error { return Dress(dfd, a, o) }},
		{"digest 4 KiB", func() error { _, _, err := DigestFd(ctx, s, 4096, DigestOptions{Buffers: buf}); return err }},
		{"open and close", func() error {
			fd, err := OpenBeneath(dir, "f", unix.O_RDONLY|unix.O_NOATIME, 0)
			unix.Close(fd)
			return err
		}},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			begin := cpuTime(b)
			for b.Loop() {
				if err := part.do(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// A large file from memory and from disk, against plain reads and writes of the
// same pieces without digests, in one run.
func BenchmarkLargeFile(b *testing.B) {
	const size = 128 << 20
	src, dst := testVolume(b, "ext4"), testVolume(b, "xfs")
	writeFile(b, src+"/f", randomBytes(1, size))
	shell(b, src, "sync -f .")
	for _, cold := range []bool{false, true} {
		for _, way := range []string{"bare", "copy", "256 KiB", "overlap", "prealloc", "write-behind"} {
			b.Run(fmt.Sprintf("%s/cold=%v", way, cold), func(b *testing.B) {
				b.SetBytes(size)
				buf := NewBuffers()
				var synced, used time.Duration
				for b.Loop() {
					b.StopTimer()
					s, d := openFile(b, src+"/f", os.O_RDONLY), openFile(b, dst+"/f", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
					if cold {
						_ = unix.Fadvise(int(s.Fd()), 0, 0, unix.FADV_DONTNEED)
					}
					b.StartTimer()
					cpu := cpuTime(b)
					if way == "prealloc" {
						if err := unix.Fallocate(int(d.Fd()), 0, 0, size); err != nil {
							b.Fatal(err)
						}
					}
					var err error
					switch way {
					case "bare":
						p := buf.Data()
						for off := int64(0); off < size; off += int64(len(p)) {
							n, _ := preadFull(int(s.Fd()), p, off)
							if err = pwriteFull(int(d.Fd()), p[:n], off); err != nil {
								break
							}
						}
					default:
						o := CopyOptions{Fresh: way != "prealloc", Buffers: buf, WriteBehind: way == "write-behind", Overlap: way == "overlap"}
						if way == "256 KiB" {
							o.RangeSize = 256 << 10
						}
						_, err = CopyData(b.Context(), s, d, size, o)
					}
					if err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					used += cpuTime(b) - cpu
					begin := time.Now()
					if err := d.Sync(); err != nil {
						b.Fatal(err)
					}
					synced += time.Since(begin)
					s.Close()
					d.Close()
					b.StartTimer()
				}
				b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
				b.ReportMetric(float64(synced.Milliseconds())/float64(b.N), "sync-ms/op")
			})
		}
	}
}

// cpuTime is what this process has used of the processors: unlike the clock it
// says the same on a machine that is busy with other things.
func cpuTime(b testing.TB) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkListDir(b *testing.B) {
	dir := b.TempDir()
	fd := openDir(b, dir)
	const entries = 10000
	for i := range entries {
		if err := unix.Mknodat(fd, fmt.Sprintf("entry-%d", i), unix.S_IFREG, 0); err != nil {
			b.Fatal(err)
		}
	}
	buf := NewBuffers()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := ListDir(fd, buf, func(Dirent) error { n++; return nil }); err != nil || n != entries {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
}

func BenchmarkSurvey(b *testing.B) {
	dir := testVolume(b, "ext4")
	shell(b, dir, "for d in $(seq 20); do mkdir $d; (cd $d; seq 500 | xargs touch); done")
	fd := openDir(b, dir)
	for _, o := range []SurveyOptions{{Workers: 1}, {Workers: 2}, {Workers: 2, StatOnly: true}} {
		b.Run(fmt.Sprintf("workers=%d,stat=%v", o.Workers, o.StatOnly), func(b *testing.B) {
			begin := cpuTime(b)
			for b.Loop() {
				if _, err := SurveyTree(b.Context(), fd, o, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10020, "ns/object")
			b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/float64(b.N)/10020, "cpu-ns/object")
		})
	}
}
