package formats_test

import (
	"maps"
	"sort"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
)

func TestParseSpec(t *testing.T) {
	for spec, want := range map[string]map[string]string{
		"ext4": {}, "ext4:inode_size=256": {"inode_size": "256"},
		"xfs:bigtime=1,64bit=0": {"bigtime": "1", "64bit": "0"}, "a:b=c=d": {"b": "c=d"},
	} {
		name, opts, err := formats.ParseSpec(spec)
		if err != nil || name != strings.SplitN(spec, ":", 2)[0] || !maps.Equal(opts, want) {
			t.Errorf("%q: %q %v %v", spec, name, opts, err)
		}
	}
	for _, spec := range []string{"", ":", "ext4:", "ext4:a", "ext4:a=", "ext4:=1", "ext4:a=1,", "ext4:a=1,a=2", "Ext4", "ext 4", "ext4:A=1", "ext4:a=\n"} {
		if name, opts, err := formats.ParseSpec(spec); err == nil {
			t.Errorf("%q is accepted: %q %v", spec, name, opts)
		}
	}
}

// What is accepted can be put together again and means the same.
func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"ext4", "ext4:inode_size=256,metadata_csum=1", "xfs:a=b=c", ":", "a:b", "a:,", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		name, opts, err := formats.ParseSpec(spec)
		if err != nil {
			return
		}
		var kv []string
		for k, v := range opts {
			kv = append(kv, k+"="+v)
		}
		sort.Strings(kv)
		again := name
		if len(kv) > 0 {
			again += ":" + strings.Join(kv, ",")
		}
		name2, opts2, err := formats.ParseSpec(again)
		if err != nil || name2 != name || !maps.Equal(opts, opts2) {
			t.Fatalf("%q became %q: %q %v %v", spec, again, name2, opts2, err)
		}
		if fm, ok := formats.Lookup(name); ok {
			argv, err := fm.Mkfs("/dev/null", formats.MakeOptions{Options: opts, Bytes: 1 << 40})
			if err == nil && argv[len(argv)-1] != "/dev/null" {
				t.Fatalf("mkfs arguments %q", argv)
			}
		}
	})
}
