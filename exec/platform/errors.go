package platform

import (
	"fmt"
	"strings"
)

// InvalidError says that a known property has a value that means nothing.
type InvalidError struct {
	Property, Value string
	Reason          string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("platform property %s=%q: %s", e.Property, e.Value, e.Reason)
}

// UnknownError says that an action asks for a property nobody here knows.
type UnknownError struct {
	Property, Value string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("platform property %s=%q is unknown", e.Property, e.Value)
}

// MismatchError says that an offer, or several, do not fulfil a property.
type MismatchError struct {
	Property string
	Asked    string
	Offered  []string // a summed up one ends with "others" when there are too many
}

func (e *MismatchError) Error() string {
	have := strings.Join(e.Offered, ", ")
	if have == "" {
		have = "none"
	}
	return fmt.Sprintf("platform property %s=%q is not offered (offered: %s)", e.Property, e.Asked, have)
}
