package power

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// patience bounds one question on the message bus.
const patience = time.Second

// MachineReaders are those of this machine. own is what the node's actions use, which does not count as others'; it may be
// nil. The second value closes what they hold.
func MachineReaders(own Usage) ([]Reader, func() error) {
	b := &systemBus{}
	return []Reader{
		batteryReader{"/"}, memoryReader{"/"}, heatReader{"/"}, &processorReader{root: "/", own: own},
		userReader{b}, meteredReader{b},
	}, b.Close
}

// systemBus is the machine's own message bus, reached when it is first asked. A machine without one is asked anew only
// every minute.
type systemBus struct {
	mu     sync.Mutex // guards all below
	conn   *dbus.Conn
	failed error
	retry  time.Time
}

// Property implements bus.
func (b *systemBus) Property(ctx context.Context, service, path, of, name string) (any, error) {
	conn, err := b.connect()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var value dbus.Variant
	call := conn.Object(service, dbus.ObjectPath(path)).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get",
		dbus.FlagNoAutoStart, of, name)
	if err := call.Store(&value); err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", service, name, err)
	}
	return value.Value(), nil
}

func (b *systemBus) connect() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	if now := time.Now(); now.Before(b.retry) {
		return nil, b.failed
	} else {
		b.retry = now.Add(time.Minute)
	}
	b.conn, b.failed = dbus.ConnectSystemBus()
	if b.failed != nil {
		b.failed = fmt.Errorf("reach the system's message bus: %w", b.failed)
		b.conn = nil
	}
	return b.conn, b.failed
}

// Close ends the connection; questions after it fail.
func (b *systemBus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed, b.retry = errors.New("the message bus is closed"), time.Now().Add(365*24*time.Hour)
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	b.conn = nil
	return err
}
