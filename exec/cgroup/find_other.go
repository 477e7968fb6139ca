//go:build !linux

package cgroup

import "errors"

// Find gives None: control groups exist on Linux only.
func Find() (Manager, error) { return None{}, errors.New("control groups exist on linux only") }
