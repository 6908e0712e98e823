package blockdev

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Pressure is how much of the time tasks wait for I/O: percentages over the
// last 10 s, and the microseconds in which some task waited since boot.
type Pressure struct {
	SomeAvg10, FullAvg10 float64
	TotalMicros          uint64
}

// IOPressure reads the kernel's I/O pressure (PSI). A kernel without it is os.ErrNotExist.
func IOPressure() (Pressure, error) {
	data, err := os.ReadFile("/proc/pressure/io")
	if err != nil {
		return Pressure{}, fmt.Errorf("read I/O pressure: %w", err)
	}
	return parsePressure(string(data))
}

func parsePressure(text string) (Pressure, error) {
	var p Pressure
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		for field := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(field, "=")
			var err error
			switch {
			case kind == "some" && key == "avg10":
				p.SomeAvg10, err = strconv.ParseFloat(value, 64)
			case kind == "full" && key == "avg10":
				p.FullAvg10, err = strconv.ParseFloat(value, 64)
			case kind == "some" && key == "total":
				p.TotalMicros, err = strconv.ParseUint(value, 10, 64)
			}
			if err != nil {
				return Pressure{}, fmt.Errorf("parse I/O pressure %q: %w", field, err)
			}
		}
	}
	return p, nil
}

// BootID names this boot of the kernel.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
