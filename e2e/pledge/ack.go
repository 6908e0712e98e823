package pledge

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// AckSize is the room that each worker has on a disk of acknowledgments, in bytes: worker N
// begins at N times it.
const AckSize = 4096

// acks is where acknowledgments go: the recorder's marks, or a disk of their own that no
// power cut touches, as a virtual machine's host has it. In either case write returns
// when the acknowledgment is out of the reach of whatever happens to the application.
type acks struct {
	file *os.File
	disk bool
}

func openAcks(path string) (*acks, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	a := &acks{disk: info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0}
	flags := os.O_WRONLY
	if a.disk {
		flags |= unix.O_SYNC
	}
	a.file, err = os.OpenFile(path, flags, 0)
	return a, err
}

func (a *acks) write(o Op) (err error) {
	text := fmt.Sprintf("ack %d %d", o.Worker, o.N)
	if !a.disk {
		_, err = a.file.WriteString(text)
		return err
	}
	b := make([]byte, AckSize)
	copy(b, text+"\n")
	_, err = a.file.WriteAt(b, int64(o.Worker)*AckSize)
	return err
}

// ReadAcks reads a disk of acknowledgments: how many operations each worker acknowledged,
// up to the last worker who acknowledged any.
func ReadAcks(disk string) (acked []int, err error) {
	b, err := os.ReadFile(disk)
	if err != nil {
		return nil, err
	}
	for w := 0; (w+1)*AckSize <= len(b); w++ {
		line, _, _ := strings.Cut(string(b[w*AckSize:(w+1)*AckSize]), "\n")
		if b[w*AckSize] == 0 {
			continue
		}
		var who, n int
		if _, err := fmt.Sscanf(line, "ack %d %d", &who, &n); err != nil || who != w {
			return nil, fmt.Errorf("acknowledgment of worker %d: %q: %w", w, line, err)
		}
		for len(acked) <= w {
			acked = append(acked, 0)
		}
		acked[w] = n
	}
	return acked, nil
}
