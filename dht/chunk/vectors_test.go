package chunk

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The image the official vectors were made from. It is not part of the protocol's module; put the
// file's path here to check every cut.
const imageVariable = "BUILDMESH_FASTCDC_IMAGE"

const imageSHA256 = "d9e749d9367fc908876749d6502eb212fee88c9a94892fb07da5ef3ba8bc39ed"

// Sizes the vectors were made with.
const (
	vectorMin     = 4096
	vectorAverage = 16384
	vectorMax     = 65535
	vectorSize    = 109466 // of the image
)

// vector is one chunk of the official test vectors.
type vector struct {
	offset, length int
	sha256         string
	fingerprint    uint64
}

// vectors reads the protocol's file, by seed.
func vectors(t *testing.T) map[uint32][]vector {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bazelbuild/remote-apis").Output()
	if err != nil {
		t.Fatalf("find the protocol's module: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "build/bazel/remote/execution/v2/fastcdc2020_test_vectors.txt"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint32][]vector{}
	seed := uint32(0)
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		line := lines.Text()
		if _, err := fmt.Sscanf(line, "# Seed: %d", &seed); err == nil || line == "" || line[0] == '#' {
			continue
		}
		var v vector
		if _, err := fmt.Sscanf(line, "%d %d %s %d", &v.offset, &v.length, &v.sha256, &v.fingerprint); err != nil {
			t.Fatalf("vector %q: %v", line, err)
		}
		all[seed] = append(all[seed], v)
	}
	if len(all) == 0 {
		t.Fatal("no vectors")
	}
	return all
}

// The hash at each cut has to fit the mask that applies at the chunk's length. This checks the masks,
// the sizes and the order of bytes in pairs without the image.
func TestVectorsFitMasks(t *testing.T) {
	for seed, chunks := range vectors(t) {
		c := newChunker(bytes.NewReader(nil), vectorMin, vectorAverage, vectorMax, seed)
		at := 0
		for i, v := range chunks {
			if v.offset != at || v.length < vectorMin || v.length > vectorMax {
				t.Errorf("seed %d: chunk %d is %+v", seed, i, v)
			}
			at += v.length
			if at == vectorSize {
				continue // the end of the image, not a cut
			}
			mask := c.small
			if v.length >= vectorAverage {
				mask = c.large
			}
			if v.length%2 == 0 { // the first of a pair
				mask <<= 1
			}
			if v.fingerprint&mask != 0 {
				t.Errorf("seed %d: no cut at %d: hash %#x, mask %#x", seed, at, v.fingerprint, mask)
			}
		}
		if at != vectorSize {
			t.Errorf("seed %d: vectors end at %d", seed, at)
		}
	}
}

// Entries of the table as the paper's program prints it.
func TestGearTable(t *testing.T) {
	gear, shifted := gearTables(0)
	for i, want := range map[int]uint64{0: 0x3b5d3c7d207e37dc, 1: 0x784d68ba91123086, 2: 0xcd52880f882e7298, 34: 0x76196c064822f0b7} {
		if gear[i] != want {
			t.Errorf("entry %d is %#x, want %#x", i, gear[i], want)
		}
	}
	for i := range gear {
		if shifted[i] != gear[i]<<1 {
			t.Errorf("entry %d is shifted to %#x", i, shifted[i])
		}
	}
}

func TestVectorsOfImage(t *testing.T) {
	path := os.Getenv(imageVariable)
	if path == "" {
		t.Skipf("%s is not set: the image (SHA-256 %s) is not at hand", imageVariable, imageSHA256)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(image); hex.EncodeToString(sum[:]) != imageSHA256 {
		t.Fatalf("%s is not the image", path)
	}
	for seed, chunks := range vectors(t) {
		c := newChunker(bytes.NewReader(image), vectorMin, vectorAverage, vectorMax, seed)
		for i, v := range chunks {
			data, err := c.Next()
			if err != nil {
				t.Fatalf("seed %d: chunk %d: %v", seed, i, err)
			}
			if sum := sha256.Sum256(data); len(data) != v.length || hex.EncodeToString(sum[:]) != v.sha256 || c.fingerprint != v.fingerprint {
				t.Errorf("seed %d: chunk %d has %d bytes and hash %d, want %+v", seed, i, len(data), c.fingerprint, v)
			}
		}
	}
}
