package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rogue:", err)
		os.Exit(1)
	}
}

// run takes a member's seat and plays a role in it until ctx ends, or the role's deed is done.
func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want ROLE DIR, not %q", args)
	}
	part, found := roles[args[0]]
	if !found {
		return fmt.Errorf("there is no role %q, only %s", args[0], strings.Join(slices.Sorted(maps.Keys(roles)), ", "))
	}
	r, err := sit(args[1], part)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.known(ctx); err != nil {
		return err
	}
	if part.deed != nil {
		said, err := part.deed(ctx, r)
		for _, line := range said {
			fmt.Println(line)
		}
		if err != nil || !part.stays {
			return err
		}
	}
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}
