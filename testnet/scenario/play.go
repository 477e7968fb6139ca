package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// World is where a scenario is played.
type World interface {
	// Do does what a sentence says and returns what it prints. An error ends the scenario: the sentence did not hold.
	Do(ctx context.Context, step Step) ([]string, error)
}

// Play plays a script step by step and returns what each step printed, up to the one that did not hold.
func Play(ctx context.Context, s *Script, world World) ([][]string, error) {
	var printed [][]string
	for _, step := range s.Steps {
		if err := ctx.Err(); err != nil {
			return printed, fmt.Errorf("before %q: %w", step.Text, err)
		}
		said, err := world.Do(ctx, step)
		if err != nil {
			return printed, fmt.Errorf("%q: %w", step.Text, err)
		}
		printed = append(printed, said)
	}
	return printed, nil
}

// Compare tells where what was printed differs from the script's transcript, or "" when it does not.
func Compare(s *Script, printed [][]string) string {
	var out strings.Builder
	for i, step := range s.Steps {
		var got []string
		if i < len(printed) {
			got = printed[i]
		}
		if Same(got, step.Want) {
			continue
		}
		fmt.Fprintf(&out, "%s\n", step.Text)
		for _, line := range step.Want {
			fmt.Fprintf(&out, "  want > %s\n", line)
		}
		for _, line := range got {
			fmt.Fprintf(&out, "  got  > %s\n", line)
		}
	}
	return out.String()
}

// Same tells whether two transcripts are equal but for blanks at ends of lines, which editors remove.
func Same(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool { return strings.TrimRight(x, " ") == strings.TrimRight(y, " ") })
}
