package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// limit is how long an attack lasts at most.
const limit = 2 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	report, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "stranger:", err)
		os.Exit(1)
	}
	fmt.Println(report)
}

// run parses the command line, attacks and says what happened.
func run(ctx context.Context, args []string) (string, error) {
	if len(args) != 3 && len(args) != 4 {
		return "", fmt.Errorf("want ATTACK HOST:PORT COUNT [DIR], not %q", args)
	}
	victim, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return "", err
	}
	count, err := strconv.Atoi(args[2])
	if err != nil || count < 1 || count > 1_000_000 {
		return "", fmt.Errorf("count %q is not between 1 and 1000000", args[2])
	}
	attack, found := attacks[args[0]]
	if !found {
		return "", fmt.Errorf("there is no attack %q", args[0])
	}
	s, err := newStranger(victim, count)
	if err != nil {
		return "", err
	}
	if len(args) == 4 {
		if s.insider, err = newInsider(args[3], victim); err != nil {
			return "", err
		}
	}
	s.flood(ctx, count, attack)
	return fmt.Sprintf("%s: %d sent, %d let in, heard %s", args[0], s.sent.Load(), s.admitted.Load(), s.answers()), nil
}

// answers are the unlike things the victim said.
func (s *stranger) answers() string {
	if len(s.heard) == 0 {
		return "nothing"
	}
	return strings.Join(slices.Sorted(maps.Keys(s.heard)), " ")
}
