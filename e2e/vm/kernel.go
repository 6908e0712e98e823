package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	Image   string // vmlinuz
	Version string
	dir     string              // of the modules
	needs   map[string][]string // by path below dir
}

// LoadKernel finds the one kernel below dir, which was unpacked from a package and whose
// modules.dep was made by depmod.
func LoadKernel(dir string) (*Kernel, error) {
	const hint = "(scripts/deps-vm.sh puts it there)"
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%d kernels in %s, want one %s", len(images), dir, hint)
	}
	k := &Kernel{Image: images[0], needs: map[string][]string{}}
	k.Version = strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	k.dir = filepath.Join(dir, "lib", "modules", k.Version)
	b, err := os.ReadFile(filepath.Join(k.dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("%w %s", err, hint)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if module, needs, ok := strings.Cut(line, ":"); ok {
			k.needs[module] = strings.Fields(needs)
		}
	}
	return k, nil
}

// Modules are the files of the named modules and of those that they need, in an order in which
// they can be loaded. A name that is no module is built in, or an error.
func (k *Kernel) Modules(names ...string) (files []string, err error) {
	builtin, err := os.ReadFile(filepath.Join(k.dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var add func(file string)
	add = func(file string) {
		if slices.Contains(files, file) {
			return
		}
		for _, n := range k.needs[file] {
			add(n)
		}
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	for _, name := range names {
		found := false
		for file := range k.needs {
			if base, _, _ := strings.Cut(filepath.Base(file), "."); base == name {
				found = true
				add(file)
			}
		}
		if !found && !strings.Contains(string(builtin), "/"+name+".ko") {
			return nil, fmt.Errorf("kernel %s has no module %s", k.Version, name)
		}
	}
	return files, nil
}

// AddModules puts modules into an initramfs, and /modules.list with their order.
func (k *Kernel) AddModules(a *Archive, names ...string) error {
	files, err := k.Modules(names...)
	if err != nil {
		return err
	}
	list := ""
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(k.dir, f))
		if err != nil {
			return err
		}
		to := "/modules/" + filepath.Base(f)
		a.File(to, 0o644, b)
		list += to + "\n"
	}
	a.File("/modules.list", 0o644, []byte(list))
	return nil
}
