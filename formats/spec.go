package formats

import (
	"fmt"
	"strings"
)

// ParseSpec splits FORMAT[:k=v,...], as --to takes it. It checks the shape only:
// whether the format and its properties exist is the registry's matter. Keys are
// lower-case letters, digits and underscores; a value is not empty and holds no
// comma or control character; a key may come once.
func ParseSpec(spec string) (name string, opts map[string]string, err error) {
	name, rest, has := strings.Cut(spec, ":")
	if !word(name) {
		return "", nil, fmt.Errorf("format %q: want FORMAT[:property=value,...], for example ext4:inode_size=256", spec)
	}
	opts = map[string]string{}
	if !has {
		return name, opts, nil
	}
	for _, kv := range strings.Split(rest, ",") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || !word(k) || v == "" {
			return "", nil, fmt.Errorf("format %q: %q is not property=value", spec, kv)
		}
		for i := 0; i < len(v); i++ {
			if v[i] < ' ' || v[i] == 0x7f {
				return "", nil, fmt.Errorf("format %q: control character in the value of %s", spec, k)
			}
		}
		if _, dup := opts[k]; dup {
			return "", nil, fmt.Errorf("format %q: property %s given twice", spec, k)
		}
		opts[k] = v
	}
	return name, opts, nil
}

func word(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
