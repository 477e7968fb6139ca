package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// spawn is what is read of one entry of Bazel's --execution_log_json_file.
type spawn struct {
	Mnemonic string `json:"mnemonic"`
	Target   string `json:"targetLabel"`
	Inputs   []file `json:"inputs"`
	Outputs  []file `json:"actualOutputs"`
	Metrics  struct {
		Execution string `json:"executionWallTime"`
	} `json:"metrics"`
}

type file struct {
	Path   string `json:"path"`
	Digest struct {
		Size string `json:"sizeBytes"`
	} `json:"digest"`
}

func size(files []file) (sum int64) {
	for _, f := range files {
		n, _ := strconv.ParseInt(f.Digest.Size, 10, 64) // directories have none
		sum += n
	}
	return sum
}

// record makes a trace of an execution log.
func record(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	err = convert(in, z)
	return errors.Join(err, z.Close(), out.Close())
}

// convert writes a line an action: mnemonic, milliseconds, bytes of inputs and outputs, number of its target, and the lines
// of the actions whose outputs it reads. Bazel logs an action when it ends, so these come earlier.
func convert(in io.Reader, out io.Writer) error {
	fmt.Fprintln(out, "# mnemonic milliseconds input-bytes output-bytes target needs")
	made, targets := map[string]int{}, map[string]int{}
	count := 0
	for d := json.NewDecoder(in); ; {
		var s spawn
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("execution log, after %d actions: %w", count, err)
		}
		seconds, err := strconv.ParseFloat(strings.TrimSuffix(s.Metrics.Execution, "s"), 64)
		if err != nil || s.Mnemonic == "" || seconds <= 0 {
			continue // did not run
		}
		if _, known := targets[s.Target]; !known {
			targets[s.Target] = len(targets)
		}
		var needs []string
		seen := map[int]bool{}
		for _, f := range s.Inputs {
			if at, found := made[f.Path]; found && !seen[at] {
				seen[at] = true
				needs = append(needs, strconv.Itoa(at))
			}
		}
		if _, err := fmt.Fprintf(out, "%s %.0f %d %d %d -%s\n", s.Mnemonic, max(seconds*1000, 1), size(s.Inputs), size(s.Outputs), targets[s.Target], strings.Join(needs, ",")); err != nil {
			return err
		}
		for _, f := range s.Outputs {
			made[f.Path] = count
		}
		count++
	}
}
