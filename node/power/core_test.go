package power

import (
	"strings"
	"testing"
	"time"
)

// noon is a Wednesday's, in a zone with half hours.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.FixedZone("here", 5*3600+1800))

// moment is one look of a scenario: what is so after a time, and what has to follow.
type moment struct {
	after  time.Duration // since the beginning
	facts  Facts
	guests int
	want   string // state, reason, and what guests shall do
}

// told is a status as scenarios write it.
func told(s Status) string {
	text := s.State.String()
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	if s.Freeze {
		text += " [freeze]"
	}
	if s.Evict {
		text += " [evict]"
	}
	return text
}

func play(t *testing.T, p Policy, kept Pause, story []moment) {
	t.Helper()
	c := NewCore(noon, p, kept)
	for _, m := range story {
		s := c.Step(noon.Add(m.after), m.facts, m.guests)
		if got := told(s); got != m.want {
			t.Fatalf("after %v: %s\nwant     %s", m.after, got, m.want)
		}
		if (s.State == Open) != (s.Reason == "") {
			t.Fatalf("after %v: state %v with reason %q", m.after, s.State, s.Reason)
		}
	}
}

// TestADay is a laptop's day: plugged in, unplugged with a guest on board, back at the plug, its owner builds, it is warm.
func TestADay(t *testing.T) {
	battery := Facts{OnBattery: true, Charge: 62}
	play(t, DefaultPolicy(), Pause{}, []moment{
		{0, Facts{}, 2, "open"},
		{2 * time.Second, battery, 2, "draining: on battery (62 %)"},
		{20 * time.Second, battery, 1, "draining: on battery (62 %)"},
		{32 * time.Second, battery, 1, "draining: on battery (62 %) [evict]"},
		{34 * time.Second, battery, 0, "closed: on battery (62 %)"},
		{60 * time.Second, Facts{}, 0, "closed: on battery (62 %)"},
		{80 * time.Second, battery, 0, "closed: on battery (62 %)"}, // the plug wobbled: the calm begins anew
		{90 * time.Second, Facts{}, 0, "closed: on battery (62 %)"},
		{119 * time.Second, Facts{}, 0, "closed: on battery (62 %)"},
		{120 * time.Second, Facts{}, 0, "open"},
		{130 * time.Second, Facts{OtherCPU: 0.7}, 1, "throttled: other programs use 70 % of the processors"},
		{132 * time.Second, Facts{OtherCPU: 0.5}, 1, "throttled: other programs use 50 % of the processors"},
		{134 * time.Second, Facts{OtherCPU: 0.3}, 1, "throttled: other programs use 50 % of the processors"},
		{164 * time.Second, Facts{OtherCPU: 0.3}, 1, "open"},
		{170 * time.Second, Facts{Hot: true}, 1, "throttled: the machine is hot"},
	})
}

// The owner comes back: guests stand still at once, leave after the grace, and go on when it was only a moment.
func TestOwnerReturns(t *testing.T) {
	p := DefaultPolicy()
	p.User = Close
	here := Facts{Active: true}
	play(t, p, Pause{}, []moment{
		{0, here, 3, "draining: somebody uses the machine [freeze]"},
		{5 * time.Second, Facts{}, 3, "open"},
		{10 * time.Second, here, 3, "draining: somebody uses the machine [freeze]"},
		{40 * time.Second, here, 3, "draining: somebody uses the machine [freeze] [evict]"},
		{41 * time.Second, here, 0, "closed: somebody uses the machine"},
		{42 * time.Second, here, 1, "closed: somebody uses the machine [freeze] [evict]"}, // it came by a race
	})
}

func TestPauseLetsGuestsFinish(t *testing.T) {
	kept := Pause{From: noon, Until: noon.Add(2 * time.Hour)}
	play(t, DefaultPolicy(), kept, []moment{
		{0, Facts{}, 1, "draining: paused"},
		{time.Hour, Facts{}, 1, "draining: paused"},
		{time.Hour + time.Second, Facts{}, 0, "closed: paused"},
		{2 * time.Hour, Facts{}, 0, "closed: paused"},
		{2*time.Hour + 30*time.Second, Facts{}, 0, "open"},
	})
	kept.Now = true
	play(t, DefaultPolicy(), kept, []moment{{0, Facts{}, 1, "draining: paused [evict]"}, {time.Second, Facts{}, 0, "closed: paused"}})
}

// Every fact leads where the policy says, and the strongest reason is the one that is shown.
func TestJudge(t *testing.T) {
	all := Facts{OnBattery: true, Charge: 5, OtherCPU: 1, Available: 1 << 20, Active: true, Hot: true, Metered: true}
	lend := Policy{Battery: Lend, User: Lend, Heat: Lend, Metered: Lend}
	for _, test := range []struct {
		name   string
		change func(*Policy)
		facts  Facts
		want   string
	}{
		{"nothing matters", func(*Policy) {}, all, "open"},
		{"battery", func(p *Policy) { p.Battery = Close }, all, "closed: on battery (5 %)"},
		{"battery throttles", func(p *Policy) { p.Battery = Throttle }, all, "throttled: on battery (5 %)"},
		{"memory", func(p *Policy) { p.Reserve = 1 << 30 }, all, "closed: only 1 MiB of memory are free"},
		{"memory not known", func(p *Policy) { p.Reserve = 1 << 30 }, Facts{}, "open"},
		{"user", func(p *Policy) { p.User = Throttle }, all, "throttled: somebody uses the machine"},
		{"metered", func(p *Policy) { p.Metered = Close }, all, "closed: the network is metered"},
		{"heat", func(p *Policy) { p.Heat = Close }, all, "closed: the machine is hot"},
		{"processors", func(p *Policy) { p.CPU = 0.9 }, all, "throttled: other programs use 100 % of the processors"},
		{"hours", func(p *Policy) { p.Hours = Hours{18 * time.Hour, 8 * time.Hour} }, Facts{}, "closed: lends only 18:00-08:00"},
		{"the strongest", func(p *Policy) { p.User, p.Metered = Throttle, Close }, all, "closed: the network is metered"},
	} {
		p := lend
		test.change(&p)
		if got := told(NewCore(noon, p, Pause{}).Step(noon, test.facts, 0)); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// A clock that jumps neither evicts a guest before its grace nor keeps the node closed for ever.
func TestClockJumps(t *testing.T) {
	battery := Facts{OnBattery: true}
	play(t, DefaultPolicy(), Pause{}, []moment{
		{0, battery, 1, "draining: on battery (0 %)"},
		{-time.Hour, battery, 1, "draining: on battery (0 %)"},
		{-time.Hour + 29*time.Second, battery, 1, "draining: on battery (0 %)"},
		{-time.Hour + 30*time.Second, battery, 1, "draining: on battery (0 %) [evict]"},
		{-time.Hour + 31*time.Second, battery, 0, "closed: on battery (0 %)"},
		{-time.Hour + 32*time.Second, Facts{}, 0, "closed: on battery (0 %)"},
		{-2 * time.Hour, Facts{}, 0, "closed: on battery (0 %)"},
		{-2*time.Hour + 30*time.Second, Facts{}, 0, "open"},
	})
	future := Pause{From: noon.Add(24 * time.Hour), Until: noon.Add(26 * time.Hour)}
	play(t, DefaultPolicy(), future, []moment{{0, Facts{}, 0, "open"}})
}

func TestHours(t *testing.T) {
	for _, test := range []struct {
		hours, at string
		open      bool
		begins    string
	}{
		{"", "03:00", true, ""},
		{"18:00-08:00", "17:59", false, "18:00"},
		{"18:00-08:00", "18:00", true, ""},
		{"18:00-08:00", "07:59", true, ""},
		{"18:00-08:00", "08:00", false, "18:00"},
		{"09:30-17:00", "17:00", false, "09:30"},
	} {
		h, err := ParseHours(test.hours)
		if err != nil || h.String() != test.hours {
			t.Fatalf("%q: %v, %v", test.hours, h, err)
		}
		clock, _ := time.Parse("15:04", test.at)
		now := time.Date(2026, 12, 31, clock.Hour(), clock.Minute(), 0, 0, noon.Location())
		open, begins := h.opens(now)
		if open != test.open || !open && (begins.Format("15:04") != test.begins || !begins.After(now) || begins.Sub(now) > 24*time.Hour) {
			t.Errorf("%s at %s: %v, begins %v", test.hours, test.at, open, begins)
		}
	}
	for _, bad := range []string{"18:00", "18:00-", "25:00-08:00", "08:00-08:00", "a-b"} {
		if h, err := ParseHours(bad); err == nil {
			t.Errorf("%q is %v", bad, h)
		}
	}
}

func TestParseUntil(t *testing.T) {
	for text, want := range map[string]time.Time{
		"": {}, "2h": noon.Add(2 * time.Hour), "until 18:00": noon.Add(6 * time.Hour), "18:00": noon.Add(6 * time.Hour),
		"until 12:00": noon.Add(24 * time.Hour), "11:30": noon.Add(23*time.Hour + 30*time.Minute),
	} {
		if got, err := ParseUntil(text, noon); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"-2h", "0s", "tomorrow", "until", "9000h", "24:00"} {
		got, err := ParseUntil(bad, noon)
		if bad != "until" && err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func FuzzParseUntil(f *testing.F) {
	f.Add("2h")
	f.Add("until 18:00")
	f.Fuzz(func(t *testing.T, text string) {
		until, err := ParseUntil(text, noon)
		if err == nil && !until.IsZero() && !until.After(noon) {
			t.Errorf("%q ends at %v, which is past", text, until)
		}
	})
}

func TestStatusInWords(t *testing.T) {
	s := Status{State: Closed, Reason: "paused", Until: noon}
	if got := s.String(); got != "closed: paused, until 12:00" {
		t.Error(got)
	}
	if !strings.Contains(State(9).String(), "unknown") {
		t.Error("the name of a state is wrong")
	}
}

// TestLent: half of the cores is whole cores.
func TestLent(t *testing.T) {
	for _, c := range []struct {
		state       State
		cores, want float64
	}{{Open, 1, 1}, {Open, 3, 3}, {Throttled, 2, 1}, {Throttled, 3, 1}, {Throttled, 8, 4}, {Draining, 8, 0}, {Closed, 8, 0}} {
		if got := (Status{State: c.state}).Lent(c.cores); got != c.want {
			t.Errorf("%v, %v cores: %v are lent, want %v", c.state, c.cores, got, c.want)
		}
	}
}

// TestOneCore: what throttles a machine closes one that has a single core to lend, since no action runs on half of it. Guests may
// finish, as those of a throttled machine, and it opens after the calm.
func TestOneCore(t *testing.T) {
	busy, used := Facts{OtherCPU: 0.9}, Facts{Active: true}
	p := DefaultPolicy()
	p.Cores = 1
	play(t, p, Pause{}, []moment{
		{0, Facts{}, 1, "open"},
		{2 * time.Second, busy, 1, "draining: other programs use 90 % of the processors"},
		{60 * time.Second, used, 1, "draining: somebody uses the machine"},
		{10 * time.Minute, busy, 0, "closed: other programs use 90 % of the processors"},
		{11 * time.Minute, Facts{}, 0, "closed: other programs use 90 % of the processors"},
		{12 * time.Minute, Facts{}, 0, "open"},
	})
	p.Cores = 2
	play(t, p, Pause{}, []moment{{0, busy, 0, "throttled: other programs use 90 % of the processors"}})
}
