package main

import (
	"context"
	"fmt"
	"os/exec"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// trivial is the program that every measured action runs.
const trivial = "/bin/true"

func (p plan) execRows() []Row {
	rows := []Row{p.trivialMillis()}
	for _, callers := range []int{1, 2, 8} {
		rows = append(rows, p.trivialRate(callers))
	}
	for _, inputs := range []int{1000, 10000} {
		rows = append(rows, p.inputs(inputs, true), p.inputs(inputs, false))
	}
	return rows
}

// root stores an input root of n small files in directories of a hundred and returns its digest.
func (p plan) root(ctx context.Context, s *Subject, n int) (*repb.Digest, error) {
	root := &repb.Directory{}
	for at := 0; at < n; at += 100 {
		directory := &repb.Directory{}
		var blobs [][]byte
		for i := range min(100, n-at) {
			data := p.content.blob(512)
			blobs = append(blobs, data)
			directory.Files = append(directory.Files, &repb.FileNode{Name: fmt.Sprintf("f%03d.h", i), Digest: digestOf(data)})
		}
		if err := s.upload(ctx, blobs...); err != nil {
			return nil, err
		}
		digest, err := s.message(ctx, directory)
		if err != nil {
			return nil, err
		}
		root.Directories = append(root.Directories, &repb.DirectoryNode{Name: fmt.Sprintf("d%04d", at/100), Digest: digest})
	}
	return s.message(ctx, root)
}

// action stores an action unlike any other over the given input root.
func (p plan) action(ctx context.Context, s *Subject, root *repb.Digest) (*repb.Digest, error) {
	salt := fmt.Sprintf("%x", p.content.blob(16))
	command, err := s.message(ctx, &repb.Command{Arguments: []string{trivial, salt}})
	if err != nil {
		return nil, err
	}
	return s.message(ctx, &repb.Action{CommandDigest: command, InputRootDigest: root})
}

// execute runs an action and waits for its result.
func (s *Subject) execute(ctx context.Context, action *repb.Digest) error {
	response, err := s.exec.Execute(ctx, action)
	if err != nil {
		return err
	}
	if response.Result.GetExitCode() != 0 || response.CachedResult {
		return fmt.Errorf("exit %d, cached %v", response.Result.GetExitCode(), response.CachedResult)
	}
	return nil
}

// actions prepares n distinct actions over one root.
func (p plan) actions(ctx context.Context, s *Subject, root *repb.Digest, n int) ([]*repb.Digest, error) {
	digests := make([]*repb.Digest, n)
	for i := range digests {
		var err error
		if digests[i], err = p.action(ctx, s, root); err != nil {
			return nil, err
		}
	}
	return digests, nil
}

func (p plan) trivialMillis() Row {
	return Row{Name: "trivial action, median time alone", Unit: "ms", executes: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			root, err := p.root(ctx, s, 0)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context) (float64, error) {
				actions, err := p.actions(ctx, s, root, p.count(100))
				if err != nil {
					return 0, err
				}
				return medianMillis(ctx, len(actions), func(ctx context.Context, i int) error { return s.execute(ctx, actions[i]) })
			}, nil
		},
		Against: "bare fork and exec",
		AgainstOnce: func(ctx context.Context) (float64, error) {
			return medianMillis(ctx, p.count(100), func(ctx context.Context, _ int) error {
				return exec.CommandContext(ctx, trivial).Run()
			})
		}}
}

func (p plan) trivialRate(callers int) Row {
	return Row{Name: fmt.Sprintf("trivial actions, %d callers", callers), Unit: "actions/s", Higher: true, executes: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			root, err := p.root(ctx, s, 0)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context) (float64, error) {
				actions, err := p.actions(ctx, s, root, p.count(200))
				if err != nil {
					return 0, err
				}
				return rate(ctx, callers, len(actions), func(ctx context.Context, i int) error { return s.execute(ctx, actions[i]) })
			}, nil
		},
		Against: "bare fork and exec",
		AgainstOnce: func(ctx context.Context) (float64, error) {
			return rate(ctx, callers, p.count(200), func(ctx context.Context, _ int) error {
				return exec.CommandContext(ctx, trivial).Run()
			})
		}}
}

// inputs measures one action over n input files, staged for the first time or already known, beside the same action
// over no inputs.
func (p plan) inputs(n int, first bool) Row {
	when := "known"
	if first {
		when = "first time"
	}
	var bare Round
	return Row{Name: fmt.Sprintf("action with %d inputs, %s", n, when), Unit: "ms", executes: true,
		Prepare: func(ctx context.Context, s *Subject) (Round, error) {
			empty, err := p.root(ctx, s, 0)
			if err != nil {
				return nil, err
			}
			bare = func(ctx context.Context) (float64, error) {
				actions, err := p.actions(ctx, s, empty, 10)
				if err != nil {
					return 0, err
				}
				return medianMillis(ctx, len(actions), func(ctx context.Context, i int) error { return s.execute(ctx, actions[i]) })
			}
			known, err := p.root(ctx, s, p.count(n))
			if err != nil {
				return nil, err
			}
			warm, err := p.action(ctx, s, known)
			if err != nil {
				return nil, err
			}
			if err := s.execute(ctx, warm); err != nil {
				return nil, err
			}
			return func(ctx context.Context) (float64, error) {
				root, runs := known, 10
				if first {
					if root, err = p.root(ctx, s, p.count(n)); err != nil {
						return 0, err
					}
					runs = 1
				}
				actions, err := p.actions(ctx, s, root, runs)
				if err != nil {
					return 0, err
				}
				return medianMillis(ctx, runs, func(ctx context.Context, i int) error { return s.execute(ctx, actions[i]) })
			}, nil
		},
		Against:     "the same without inputs",
		AgainstOnce: func(ctx context.Context) (float64, error) { return bare(ctx) },
	}
}
