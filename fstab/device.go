package fstab

import (
	"path/filepath"
	"strings"
)

// Device is the names by which an entry may mean one device.
type Device struct {
	Path                             string // any path of it; symbolic links (/dev/disk/by-…) are followed
	UUID, Label, PartUUID, PartLabel string // empty: it has none
}

// Means reports whether the entry's spec names d.
func (e Entry) Means(d Device) bool {
	tag, value, isTag := strings.Cut(e.Spec, "=")
	if isTag && !strings.HasPrefix(e.Spec, "/") {
		value = strings.Trim(value, `"`)
		if value == "" {
			return false
		}
		switch tag {
		case "UUID":
			return strings.EqualFold(value, d.UUID)
		case "LABEL":
			return value == d.Label
		case "PARTUUID":
			return strings.EqualFold(value, d.PartUUID)
		case "PARTLABEL":
			return value == d.PartLabel
		}
		return false
	}
	if d.Path == "" || !filepath.IsAbs(e.Spec) {
		return false
	}
	return resolve(e.Spec) == resolve(d.Path)
}

func resolve(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return filepath.Clean(path)
}

// Native is the entry of the volume that took the place of old's: found by its
// UUID, with the options that its format knows. dropped are those it does not.
// XFS and btrfs are not checked at boot (their fsck does nothing), so their pass is 0; the
// ext formats keep old's, or get 2 where there was none to keep.
func Native(old Entry, from, to, uuid string) (e Entry, dropped []string) {
	e = old
	e.Spec, e.Type = "UUID="+uuid, to
	e.Options, dropped = Translate(old.Options, from, to)
	if e.Options == "" {
		e.Options = "defaults"
	}
	switch {
	case !extFamily(to):
		e.Pass = 0
	case !extFamily(from) && old.Pass == 0:
		e.Pass = 2
	}
	return e, dropped
}
