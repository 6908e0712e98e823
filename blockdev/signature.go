package blockdev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
)

// Signature is a mark that something on a device is, or was, in use.
type Signature struct {
	Type   string // ext4, xfs, LVM2_member, gpt …
	Usage  string // filesystem, raid, crypto, partition-table, other
	Label  string
	UUID   string
	Offset int64 // of its magic number, bytes
}

// Signatures lists every signature on the device or image at path, by a
// low-level probe that asks no cache (wipefs, which writes nothing here). nil: blank.
func Signatures(path string) ([]Signature, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "wipefs", "--no-act", "--json", "--output", "OFFSET,TYPE,USAGE,UUID,LABEL", "--", path)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w: %s", path, err, bytes.TrimSpace(stderr.Bytes()))
	}
	found, err := parseSignatures(out)
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", path, err)
	}
	return found, nil
}

// parseSignatures reads wipefs --json; nothing at all is its answer for a blank device.
func parseSignatures(out []byte) ([]Signature, error) {
	if len(bytes.TrimSpace(out)) == 0 {
		return nil, nil
	}
	var answer struct {
		Signatures []struct {
			Offset string  `json:"offset"`
			Type   string  `json:"type"`
			Usage  *string `json:"usage"`
			UUID   *string `json:"uuid"`
			Label  *string `json:"label"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("parse signatures: %w", err)
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	var found []Signature
	for _, s := range answer.Signatures {
		offset, err := strconv.ParseInt(s.Offset, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("parse signatures: offset: %w", err)
		}
		if s.Type == "" {
			return nil, errors.New("parse signatures: one without a type")
		}
		found = append(found, Signature{Type: s.Type, Usage: text(s.Usage), Label: text(s.Label), UUID: text(s.UUID), Offset: offset})
	}
	return found, nil
}
