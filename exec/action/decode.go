package action

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/platform"
)

// Decode fetches and validates the Action named d. Its digest function is the one of everything the
// action refers to. Errors are those the package names.
func Decode(ctx context.Context, blobs Blobs, d digest.Digest, limits Limits) (*Action, error) {
	limits = limits.withDefaults()
	a := &Action{Digest: d}
	message := &repb.Action{}
	if err := fetch(ctx, blobs, d, limits, message); err != nil {
		return nil, fmt.Errorf("action %s: %w", d.Short(), err)
	}
	if err := a.setAction(message, limits); err != nil {
		return nil, fmt.Errorf("action %s: %w", d.Short(), err)
	}
	command := &repb.Command{}
	err := fetch(ctx, blobs, a.CommandDigest, limits, command)
	if missing, ok := errors.AsType[*MissingError](err); ok {
		err = a.withMissingInputs(ctx, blobs, missing)
	}
	if err != nil {
		return nil, fmt.Errorf("action %s: command %s: %w", d.Short(), a.CommandDigest.Short(), err)
	}
	if err := a.setCommand(command, limits); err != nil {
		return nil, fmt.Errorf("action %s: command: %w", d.Short(), err)
	}
	//lint:ignore SA1019 clients of API 2.0 and 2.1 set the platform of the Command only
	if err := a.setPlatform(platform.Effective(message.Platform, command.Platform)); err != nil {
		return nil, fmt.Errorf("action %s: %w", d.Short(), err)
	}
	if a.WholeRoot, err = wholeRoot(ctx, blobs, a, limits); err != nil {
		return nil, fmt.Errorf("action %s: %w", d.Short(), err)
	}
	return a, nil
}

// fetch reads one message. A blob that is not there is a *MissingError, bytes that are no such message
// an *InvalidError.
func fetch(ctx context.Context, blobs Blobs, d digest.Digest, limits Limits, into proto.Message) error {
	name := string(into.ProtoReflect().Descriptor().Name())
	if d.Size() > limits.MaxMessageBytes {
		return &InvalidError{Field: name, Reason: fmt.Sprintf("has %d bytes, at most %d are read", d.Size(), limits.MaxMessageBytes)}
	}
	data, err := blobs.GetBatch(ctx, []digest.Digest{d})
	if err != nil {
		return fmt.Errorf("fetch %s: %w", d.Short(), err)
	}
	if data[0] == nil {
		return &MissingError{Digests: []digest.Digest{d}}
	}
	if err := proto.Unmarshal(data[0], into); err != nil {
		return &InvalidError{Field: name, Reason: "is not such a message: " + err.Error()}
	}
	return nil
}

// setAction takes over what the Action message alone says.
func (a *Action) setAction(m *repb.Action, limits Limits) error {
	var err error
	if a.CommandDigest, err = digest.FromProto(a.Digest.Function(), m.CommandDigest); err != nil {
		return &InvalidError{Field: "command_digest", Reason: err.Error()}
	}
	if a.InputRoot, err = digest.FromProto(a.Digest.Function(), m.InputRootDigest); err != nil {
		return &InvalidError{Field: "input_root_digest", Reason: err.Error()}
	}
	if a.Timeout, err = timeout(m.Timeout, limits.MaxTimeout); err != nil {
		return err
	}
	a.DoNotCache = m.DoNotCache
	return nil
}

// timeout reads the action's own limit of time; unset and zero both ask for none.
func timeout(d *durationpb.Duration, longest time.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, &InvalidError{Field: "timeout", Reason: err.Error()}
	}
	asked := d.AsDuration() // saturates, so a huge one stays above every maximum
	if asked < 0 {
		return 0, &InvalidError{Field: "timeout", Reason: fmt.Sprintf("%s is negative", asked)}
	}
	if asked > longest {
		return 0, &InvalidError{Field: "timeout", Reason: fmt.Sprintf("%s is above this endpoint's maximum of %s", asked, longest)}
	}
	return asked, nil
}

// setPlatform parses the properties that count and turns the faults into this package's errors.
func (a *Action) setPlatform(p *repb.Platform) error {
	request, err := platform.Parse(p)
	if unknown, ok := errors.AsType[*platform.UnknownError](err); ok {
		return &UnsupportedError{Property: unknown.Property, Err: err}
	}
	if invalid, ok := errors.AsType[*platform.InvalidError](err); ok {
		return &InvalidError{Field: "platform." + invalid.Property, Reason: err.Error()}
	}
	if err != nil {
		return err
	}
	a.Platform = request
	return nil
}

// wholeRoot decides whether the input root is the root file system. No message says so directly; in
// order of authority:
//
//  1. the instance: its name was configured to mean it
//  2. InputRootAbsolutePath, where the client wrote it
//  3. chrootRootDigest: the input root is laid over that one
//  4. the shape of a BuildStream action, all of: outputs as DIRECTORY_ONLY, a bare argv[0], a platform
//     with ISA and OSFamily, and dev, proc and tmp at the top of the input root
func wholeRoot(ctx context.Context, blobs Blobs, a *Action, limits Limits) (bool, error) {
	if limits.WholeRoot {
		return true, nil
	}
	if a.Platform.InputRoot != "" {
		return a.Platform.InputRoot == platform.InputRootWhole, nil
	}
	if a.Platform.ChrootRoot != "" {
		return true, nil
	}
	if a.Format != repb.Command_DIRECTORY_ONLY || strings.Contains(a.Arguments[0], "/") ||
		len(a.Platform.ISA) == 0 || a.Platform.OSFamily == "" {
		return false, nil
	}
	root := &repb.Directory{}
	err := fetch(ctx, blobs, a.InputRoot, limits, root)
	if missing, ok := errors.AsType[*MissingError](err); ok {
		return false, a.withMissingInputs(ctx, blobs, missing)
	}
	if err != nil {
		return false, fmt.Errorf("input root %s: %w", a.InputRoot.Short(), err)
	}
	wanted := map[string]bool{"dev": true, "proc": true, "tmp": true}
	for _, sub := range root.Directories {
		delete(wanted, sub.GetName())
	}
	return len(wanted) == 0, nil
}
