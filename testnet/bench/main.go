package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"
)

// options are the command's flags.
type options struct {
	node, other, out string
	install          string
	rounds           int
	quick            bool
	only             *regexp.Regexp
}

func main() {
	var o options
	flag.StringVar(&o.node, "node", "bin/buildmesh", "the node's binary")
	flag.StringVar(&o.other, "bazel-remote", "", "bazel-remote's binary; empty: found or installed")
	flag.StringVar(&o.out, "out", "out", "directory of bench.md and bench.svg")
	flag.StringVar(&o.install, "install", "", "only put bazel-remote into this directory and print where it is")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each row")
	flag.BoolVar(&o.quick, "quick", false, "a hundredth of everything: shows that it runs, measures nothing")
	only := flag.String("only", "", "regular expression: measure only the rows whose name matches")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if o.install != "" {
		if err := install(ctx, o.install, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// install gets bazel-remote for other measurements, prints its path to w and where it is from to about.
func install(ctx context.Context, dir string, w, about io.Writer) error {
	other, note := findOther(ctx, "", dir)
	if other == nil || other.name != bazelRemoteName {
		return fmt.Errorf("no bazel-remote: %s", note)
	}
	fmt.Fprintln(about, note)
	_, err := fmt.Fprintln(w, other.binary)
	return err
}

// run starts both servers, measures, and writes the report.
func run(ctx context.Context, o options, w io.Writer) error {
	// On a disk, beside each other: not on a memory file system.
	base, err := os.MkdirTemp("/var/tmp", "buildmesh-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(base) }()
	binary, err := filepath.Abs(o.node)
	if err != nil {
		return err
	}
	ours, err := nodeLaunch(binary).start(ctx, base)
	if err != nil {
		return err
	}
	defer ours.stop()
	other, note := findOther(ctx, o.other, base)
	var theirs *Subject
	if other != nil {
		if theirs, err = other.start(ctx, base); err != nil {
			return err
		}
		defer theirs.stop()
	}
	seed := uint64(time.Now().UnixNano())
	fmt.Fprintf(w, "%s; seed %d\n", note, seed)
	report := Report{Ours: ours.Name, Note: note, Machine: machine()}
	if theirs != nil {
		report.Theirs = theirs.Name
	}
	p := plan{content: newContent(seed), quick: o.quick}
	report.Results, err = measureAll(ctx, slices.Concat(p.idleRows(), p.cacheRows(), p.execRows()), o, ours, theirs, w)
	if err != nil {
		return err
	}
	report.OursPeak = ours.PeakMemory()
	if theirs != nil {
		report.TheirsPeak = theirs.PeakMemory()
	}
	return write(report, o.out, w)
}

func measureAll(ctx context.Context, rows []Row, o options, ours, theirs *Subject, w io.Writer) ([]Result, error) {
	var results []Result
	for _, row := range rows {
		if !o.only.MatchString(row.Name) {
			continue
		}
		result, err := measure(ctx, row, ours, theirs, o.rounds)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(w, "%-42s %12s %12s %s  x%s\n", row.Name, number(result.Ours.Median), number(result.Theirs.Median),
			row.Unit, times(result.Ratio()))
		results = append(results, result)
	}
	return results, nil
}

func machine() string {
	return fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// write puts the table and the picture into dir and prints the table.
func write(report Report, dir string, w io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, render := range map[string]func(io.Writer) error{"bench.md": report.WriteTable, "bench.svg": report.WriteSVG} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := render(file); err != nil {
			_ = file.Close()
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return report.WriteTable(w)
}
