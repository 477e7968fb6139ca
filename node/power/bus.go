package power

import (
	"context"
	"fmt"
)

// A bus answers questions about properties of services on the system's message bus.
type bus interface {
	// Property gives the value of a property, such as a bool or uint32.
	Property(ctx context.Context, service, path, of, name string) (any, error)
}

// userReader asks logind whether a person uses the machine (org.freedesktop.login1.Manager, IdleHint).
type userReader struct{ bus bus }

func (userReader) Name() string { return "user" }

func (u userReader) Read(ctx context.Context, f *Facts) error {
	value, err := u.bus.Property(ctx, "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "IdleHint")
	if err != nil {
		return err
	}
	idle, ok := value.(bool)
	if !ok {
		return fmt.Errorf("logind's IdleHint is a %T", value)
	}
	f.Active = !idle
	return nil
}

// meteredReader asks NetworkManager whether the network is paid by the byte (org.freedesktop.NetworkManager, Metered:
// 1 yes, 2 no, 3 probably yes, 4 probably no).
type meteredReader struct{ bus bus }

func (meteredReader) Name() string { return "metered network" }

func (m meteredReader) Read(ctx context.Context, f *Facts) error {
	value, err := m.bus.Property(ctx, "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager",
		"org.freedesktop.NetworkManager", "Metered")
	if err != nil {
		return err
	}
	metered, ok := value.(uint32)
	if !ok {
		return fmt.Errorf("NetworkManager's Metered is a %T", value)
	}
	f.Metered = metered == 1 || metered == 3
	return nil
}
