package power

import (
	"fmt"
	"math"
	"time"
)

// State is how much of this machine is lent.
type State int

// The states, from lending everything to lending nothing.
const (
	Open State = iota
	Throttled
	Draining
	Closed
)

func (s State) String() string {
	names := [...]string{"open", "throttled", "draining", "closed"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// Status is the state with all that follows from it.
type Status struct {
	State  State
	Reason string    // in a person's words, such as "on battery (62 %)"; empty only when open
	Since  time.Time // when the state was entered
	Until  time.Time // when it ends by itself, if that is known
	Freeze bool      // guest actions shall stand still for now
	Evict  bool      // guest actions shall leave now
}

// Lent is how many of so many cores are lent: all, half of them in whole ones, or none.
func (s Status) Lent(cores float64) float64 {
	switch s.State {
	case Open:
		return cores
	case Throttled:
		return math.Floor(cores / 2)
	default:
		return 0
	}
}

// String is the status in one line, such as "closed: on battery (62 %)".
func (s Status) String() string {
	text := s.State.String()
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	if !s.Until.IsZero() {
		text += fmt.Sprintf(", until %s", s.Until.Format("15:04"))
	}
	return text
}

// Facts is what is so at one moment. The zero value is a desktop that nobody uses and nothing is known of.
type Facts struct {
	OnBattery bool
	Charge    float64 // of the battery, in percent; counts only OnBattery
	OtherCPU  float64 // share of all processors that others than actions use, 0 to 1
	Available int64   // bytes of memory that could be used without swapping; 0: not known
	Active    bool    // a person uses the machine
	Hot       bool    // the machine has reached a temperature at which it slows itself down
	Metered   bool    // the network is paid by the byte
}
