package shadow

import (
	"os"
	"testing"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// A power cut between the rename and the writing out of the ledger left an empty one, and
// the boot refused to mount anything: "unexpected end of JSON input".
func TestLedgerOfBeforeAPowerCut(t *testing.T) {
	p := &Place{o: PlaceOptions{StateDir: t.TempDir()}}
	whole := ledger{Mounts: []sealedMount{{NS: 1, ID: 2, Point: "/data", Wrote: true}}}
	now, err := p.loadLedger(migrate.Source)
	if err != nil {
		t.Fatal(err)
	}
	whole.BootID = now.BootID
	if err := p.saveLedger(migrate.Source, whole); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.ledgerPath(migrate.Source))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := p.loadLedger(migrate.Source); err != nil || !l.wrote(1, "/data") {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, left := range [][]byte{nil, text[:len(text)/2], make([]byte, len(text))} {
		if err := os.WriteFile(p.ledgerPath(migrate.Source), left, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := p.loadLedger(migrate.Source)
		if err != nil || len(l.Mounts) > 0 || l.BootID != now.BootID {
			t.Errorf("%d bytes of it: %+v, %v", len(left), l, err)
		}
	}
}
