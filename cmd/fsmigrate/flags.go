package main

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// bind makes one flag of every field of the struct that o points to which has a
// `flag` tag, going into embedded structs. The field's value is the default, or
// what the variable of an `env` tag says; `arg` names the flag's argument in the
// help and `usage` explains it.
func bind(fs *pflag.FlagSet, o any) {
	bindStruct(fs, reflect.ValueOf(o).Elem())
}

func bindStruct(fs *pflag.FlagSet, v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			bindStruct(fs, v.Field(i))
			continue
		}
		name := f.Tag.Get("flag")
		if name == "" {
			continue
		}
		val := &value{v: v.Field(i), arg: f.Tag.Get("arg")}
		usage := f.Tag.Get("usage")
		if env := f.Tag.Get("env"); env != "" {
			usage += " (env " + env + ")"
		}
		flag := fs.VarPF(val, name, f.Tag.Get("short"), usage)
		if env := os.Getenv(f.Tag.Get("env")); f.Tag.Get("env") != "" && env != "" {
			_ = val.Set(env) // strings only: cannot fail
		}
		if v.Field(i).Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
			if flag.DefValue == "false" {
				flag.DefValue = ""
			}
		}
	}
}

// value is a field of an Options struct as a pflag.Value.
type value struct {
	v   reflect.Value
	arg string
	set bool
}

// Type is what the help shows as the flag's argument.
func (f *value) Type() string {
	if f.v.Kind() == reflect.Bool {
		return "bool"
	}
	return f.arg
}

func (f *value) String() string {
	if f == nil || !f.v.IsValid() {
		return ""
	}
	switch x := f.v.Interface().(type) {
	case time.Duration:
		if x == 0 {
			return ""
		}
		return shortDuration(x)
	case Size:
		if x == 0 {
			return ""
		}
		return x.String()
	case []string:
		return strings.Join(x, ", ")
	}
	return fmt.Sprint(f.v.Interface())
}

func (f *value) Set(s string) error {
	switch f.v.Interface().(type) {
	case string:
		f.v.SetString(s)
	case bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("want true or false")
		}
		f.v.SetBool(b)
	case int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("want a number")
		}
		f.v.SetInt(int64(n))
	case time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return fmt.Errorf("want a duration such as 500ms, 2s, 6h")
		}
		f.v.SetInt(int64(d))
	case Size:
		n, err := ParseSize(s)
		if err != nil {
			return err
		}
		f.v.SetInt(int64(n))
	case []string:
		f.v.Set(reflect.Append(f.v, reflect.ValueOf(s)))
	default:
		return fmt.Errorf("field of type %s", f.v.Type())
	}
	f.set = true
	return nil
}

// shortDuration drops the zero units that time.Duration prints: 2m0s is 2m.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
