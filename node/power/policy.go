package power

import (
	"fmt"
	"strings"
	"time"
)

// Wish is what the owner wants done about one fact.
type Wish string

// The wishes.
const (
	Lend     Wish = "lend"     // never mind
	Throttle Wish = "throttle" // lend half
	Close    Wish = "close"    // lend nothing
)

// level is the state a wish leads to.
func (w Wish) level() State {
	switch w {
	case Close:
		return Closed
	case Throttle:
		return Throttled
	default:
		return Open
	}
}

// Policy is what the owner wants. DefaultPolicy has the defaults.
type Policy struct {
	Battery Wish          // while on battery
	User    Wish          // while a person uses the machine; Close freezes guests at once
	Heat    Wish          // while the machine is hot
	Metered Wish          // while the network is metered
	CPU     float64       // share of the processors, 0 to 1, above which what others use throttles; 0: never
	Reserve int64         // bytes of memory left to the owner; below it the node closes
	Hours   Hours         // when to lend; the zero value is always
	Cores   float64       // lent when open; with fewer than two, what else throttles closes, and guests may finish; 0: not known
	Grace   time.Duration // from draining to eviction
	Calm    time.Duration // without a reason before a better state
}

// DefaultPolicy is the one of a node nobody has configured.
func DefaultPolicy() Policy {
	return Policy{
		Battery: Close, User: Throttle, Heat: Throttle, Metered: Close, CPU: 0.6, Reserve: 1 << 30,
		Grace: 30 * time.Second, Calm: 30 * time.Second,
	}
}

// Hours is a part of every day, in local time. One that begins later than it ends goes over midnight.
type Hours struct{ From, To time.Duration } // since midnight; equal: the whole day

// ParseHours reads "18:00-08:00"; the empty text is the whole day.
func ParseHours(text string) (Hours, error) {
	if text == "" {
		return Hours{}, nil
	}
	from, to, found := strings.Cut(text, "-")
	begin, err := parseClock(from)
	end, endErr := parseClock(to)
	if !found || err != nil || endErr != nil || begin == end {
		return Hours{}, fmt.Errorf("hours %q are not of the form 18:00-08:00", text)
	}
	return Hours{From: begin, To: end}, nil
}

// parseClock reads a time of day as the time since midnight.
func parseClock(text string) (time.Duration, error) {
	t, err := time.Parse("15:04", strings.TrimSpace(text))
	if err != nil {
		return 0, err
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// opens reports whether now is within the hours and, if not, when they begin.
func (h Hours) opens(now time.Time) (bool, time.Time) {
	if h.From == h.To {
		return true, time.Time{}
	}
	clock := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute + time.Duration(now.Second())*time.Second
	inside := clock >= h.From && clock < h.To
	if h.From > h.To {
		inside = clock >= h.From || clock < h.To
	}
	if inside {
		return true, time.Time{}
	}
	begin := time.Date(now.Year(), now.Month(), now.Day(), int(h.From.Hours()), int(h.From.Minutes())%60, 0, 0, now.Location())
	if !begin.After(now) {
		begin = begin.AddDate(0, 0, 1)
	}
	return false, begin
}

func (h Hours) String() string {
	if h.From == h.To {
		return ""
	}
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	return clock(h.From) + "-" + clock(h.To)
}
