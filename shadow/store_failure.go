package shadow

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// ErrStore says that the store failed for good: a write or a sync of its log or
// its manifest failed, and what a failed sync left on disk is not known (I6). Nothing more
// is done with it. A new process that opens it finds what was durable.
var ErrStore = errors.New("the journal's store failed")

// storeFailure turns Pebble's way of failing (Logger.Fatalf, panics) into
// errors. A failure in one of Pebble's own goroutines still ends the process, which is the safe
// thing: the migration resumes from what is durable, and the application never notices (I9).
type storeFailure struct {
	fatal      atomic.Pointer[error]
	background atomic.Pointer[error] // of the last flush or compaction, until one succeeds
}

// fatalPanic is what Fatalf throws and guard catches.
type fatalPanic struct{ err error }

func (p fatalPanic) Error() string { return p.err.Error() }

// Infof, Errorf and Fatalf are Pebble's logger. Engine packages do not log.
func (*storeFailure) Infof(string, ...any)  {}
func (*storeFailure) Errorf(string, ...any) {}

// Fatalf must not return: Pebble would go on.
func (f *storeFailure) Fatalf(format string, args ...any) {
	err := fmt.Errorf("%w: "+format, append([]any{ErrStore}, args...)...)
	f.fatal.CompareAndSwap(nil, &err)
	panic(fatalPanic{err})
}

func (f *storeFailure) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { f.background.Store(&err) },
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err == nil {
				f.background.Store(nil)
			}
		},
	}
}

func (f *storeFailure) err() error {
	if p := f.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

// trouble is why nothing should be written now: Pebble would hold the writer until
// its flush succeeds, which on a full disk is never.
func (f *storeFailure) trouble() error {
	if err := f.err(); err != nil {
		return err
	}
	if p := f.background.Load(); p != nil {
		return fmt.Errorf("write tables of the store: %w", *p)
	}
	return nil
}

// guard runs fn, which calls nothing but Pebble, unless the store failed, and
// turns a panic into an error.
func (f *storeFailure) guard(fn func() error) (err error) {
	if err := f.err(); err != nil {
		return err
	}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case fatalPanic:
			err = p.err
		default:
			err = fmt.Errorf("%w: %v", ErrStore, p)
			f.fatal.CompareAndSwap(nil, &err)
		}
	}()
	return fn()
}
