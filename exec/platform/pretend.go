package platform

import (
	"fmt"
	"strings"
)

// Pretend gives an offer that says other things of the machine than are true, for experiments with unlike machines on one.
// The list is name=value with commas between: OSFamily and host-fingerprint once, ISA as often as wanted, in place of all
// the machine has. Errors are *InvalidError and *UnknownError.
func (o Offer) Pretend(list string) (Offer, error) {
	var isa []string
	for _, pair := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, value, _ := strings.Cut(pair, "=")
		if value == "" {
			return Offer{}, &InvalidError{Property: name, Value: value, Reason: "is empty"}
		}
		switch name {
		case "OSFamily":
			o.OSFamily = normalOS(value)
		case "ISA":
			isa = append(isa, normalISA(value))
		case "host-fingerprint":
			o.Fingerprint = value
		default:
			return Offer{}, fmt.Errorf("pretend: %w", &UnknownError{Property: name, Value: value})
		}
	}
	if isa != nil {
		o.ISA = isa
	}
	return o, nil
}
