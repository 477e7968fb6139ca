package cas_test

import (
	"fmt"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// TestVerifyTellsProgress verifies more blobs than one step takes.
func TestVerifyTellsProgress(t *testing.T) {
	s, err := cas.Open(t.TempDir(), cas.Options{MaxBytes: 64 << 20, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blobs := make([]cas.Blob, 1000)
	for i := range blobs {
		data := []byte(fmt.Sprint("blob ", i))
		blobs[i] = cas.Blob{Digest: digest.SHA256.Of(data), Data: data}
	}
	if errs := s.PutBatch(t.Context(), blobs); errs != nil {
		t.Fatal(errs)
	}
	var told []int64
	report, err := s.Verify(t.Context(), cas.VerifyOptions{Progress: func(blobs, bytes int64) {
		if len(told) > 0 && blobs < told[len(told)-1] || bytes < blobs {
			t.Errorf("after %v: %d blobs, %d bytes", told, blobs, bytes)
		}
		told = append(told, blobs)
	}})
	if err != nil || report.Blobs != 1000 || len(told) < 2 || told[len(told)-1] != 1000 {
		t.Errorf("%+v, %v; told %v", report, err, told)
	}
}
