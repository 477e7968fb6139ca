package human

import (
	"math"
	"testing"
	"time"
)

func TestForms(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Bytes(-1), "0 B"}, {Bytes(0), "0 B"}, {Bytes(1023), "1023 B"}, {Bytes(1024), "1.0 KiB"}, {Bytes(1536), "1.5 KiB"},
		{Bytes(1<<20 - 1), "1.0 MiB"}, {Bytes(5 << 30), "5.0 GiB"}, {Bytes(1 << 60), "1.0 EiB"}, {Bytes(math.MaxInt64), "8.0 EiB"},
		{Age(-time.Second), "0 ms"}, {Age(20 * time.Millisecond), "20 ms"}, {Age(59 * time.Second), "59 s"},
		{Age(61 * time.Second), "1 min 1 s"}, {Age(90 * time.Minute), "1 h 30 min"}, {Age(50 * time.Hour), "2 d 2 h"},
		{Count(-3), "0"}, {Count(7), "7"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(1234567), "1,234,567"},
		{Percent(1, 0), "0 %"}, {Percent(1, 2), "50 %"}, {Percent(2, 3), "67 %"},
		{Cores(2), "2"}, {Cores(1.5), "1.5"}, {Cores(-1), "0"},
		{State("ready", ""), "ready"}, {State("paused", "paused"), "paused"}, {State("closed", "on battery"), "closed: on battery"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
