package reapi

import (
	"fmt"
	"time"
)

// FieldError is a request that is wrong in one field, named as the protocol names it.
type FieldError struct {
	Field  string
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// invalid makes a *FieldError.
func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// RetryError is a fault that goes away by itself: a peer that left, a queue that is full. The client
// is asked to come back after After.
type RetryError struct {
	After  time.Duration
	Reason string
}

func (e *RetryError) Error() string { return e.Reason }

// RangeError is an offset outside a blob.
type RangeError struct {
	Offset int64
	Size   int64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("offset %d is outside of a blob of %d bytes", e.Offset, e.Size)
}

// DeniedError is a call that the node's configuration forbids.
type DeniedError struct{ Reason string }

func (e *DeniedError) Error() string { return e.Reason }
