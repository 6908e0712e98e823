package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
)

const perDir = 200

// SmallFiles makes n files of 4 KiB mean, exponentially distributed as small files
// tend to be, and answers their bytes. The seed is fixed: every rig has the same.
func SmallFiles(ctx context.Context, root string, n int) (int64, error) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := noise(64 << 10)
	var total int64
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("%02x", i/perDir/64), fmt.Sprintf("%02x", i/perDir%64))
		if i%perDir == 0 {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return 0, err
			}
		}
		size := min(int(r.ExpFloat64()*4096), len(buf))
		at := r.IntN(len(buf) - size + 1)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%06d", i)), buf[at:at+size], 0o644); err != nil {
			return 0, err
		}
		total += int64(size)
	}
	return total, nil
}

// LargeFiles makes four files of n/4 bytes.
func LargeFiles(ctx context.Context, root string, n int64) (int64, error) {
	buf := noise(4 << 20)
	for i := range 4 {
		f, err := os.Create(filepath.Join(root, fmt.Sprintf("large-%d", i)))
		if err != nil {
			return 0, err
		}
		for left := n / 4; left > 0 && err == nil && ctx.Err() == nil; left -= int64(len(buf)) {
			_, err = f.Write(buf[:min(left, int64(len(buf)))])
		}
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return 0, err
		}
	}
	return n / 4 * 4, ctx.Err()
}

// noise is n bytes that do not compress.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// touch rewrites count files of the n that SmallFiles made, spread over all.
func touch(root string, n, count, round int) error {
	var once sync.Once
	var first error
	for i := range count {
		k := i * (n / count)
		path := filepath.Join(root, fmt.Sprintf("%02x", k/perDir/64), fmt.Sprintf("%02x", k/perDir%64), fmt.Sprintf("file-%06d", k))
		if err := os.WriteFile(path, fmt.Appendf(nil, "changed in round %d\n", round), 0o644); err != nil {
			once.Do(func() { first = err })
		}
	}
	return first
}
