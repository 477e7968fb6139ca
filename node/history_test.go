package node

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/buildmesh/buildmesh/exec/place"
)

// estimate is what a node expects of an action of about's mnemonic.
func (s *started) estimate() place.Estimate { return s.machine.leasing.initiator.Estimate("Genrule") }

// TestEstimatesOutliveTheNode: what a node learned of its actions it knows after an orderly end and after a kill, and a
// journal that is damaged costs that knowledge and nothing else.
func TestEstimatesOutliveTheNode(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	first := executing(t, dir, "exec.cores=1")
	for i := range 6 {
		first.executedFor(t, "//app:it", first.action(t, fmt.Sprintf("printf %d-1234567 > out", i)))
	}
	want := first.estimate()
	if want.Samples != 6 || want.Own != 6 || want.Median <= 0 || want.OutputBytes != int64(len("0-1234567")) {
		t.Fatalf("expected of the next: %+v", want)
	}
	first.why(t, "") // the journal is written
	killed := t.TempDir()
	if err := os.CopyFS(filepath.Join(killed, "cache", "journal"), os.DirFS(filepath.Join(first.config.Dir.Cache, "journal"))); err != nil {
		t.Fatal(err)
	}
	first.stop()
	second := executing(t, dir, "exec.cores=1")
	if got := second.estimate(); got != want {
		t.Errorf("after a restart %+v is expected, before %+v", got, want)
	}
	second.stop()
	third := executing(t, killed, "exec.cores=1")
	if got := third.estimate(); got != want || third.config.Dir.Cache != filepath.Join(killed, "cache") {
		t.Errorf("after a kill %+v is expected, before %+v", got, want)
	}
	third.stop()
	err := filepath.WalkDir(filepath.Join(second.config.Dir.Cache, "journal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.WriteFile(path, []byte("not a journal"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	fourth := executing(t, dir, "exec.cores=1")
	if got := fourth.estimate(); got != (place.Estimate{}) {
		t.Errorf("of a damaged journal %+v is expected", got)
	}
	fourth.executedFor(t, "//app:it", fourth.action(t, "echo again > out"))
	fourth.stop()
}
